// Makes ../earthquakes.ndjson: one earthquake a line, oldest first, each already in the shape of one event of a batch.
//
//   npm ci && npm run generate
//
// The input is the feed "USGS All Earthquakes, Past Week" of February 2018, as the package vega-datasets carries it.

import { readFileSync, writeFileSync } from "node:fs";

const feed = JSON.parse(readFileSync(new URL("node_modules/vega-datasets/data/earthquakes.json", import.meta.url), "utf8"));

// The classes by magnitude that seismologists commonly use, from the top.
const CLASSES = [[8, "great"], [7, "major"], [6, "strong"], [5, "moderate"], [4, "light"], [3, "minor"], [-Infinity, "micro"]];
// The feed writes some places in two ways; a subject has one.
const PLACES = { ca: "california", mx: "mexico" };

function magnitudeClass(magnitude) {
  return CLASSES.find(([least]) => magnitude >= least)[1];
}

// "4km W of Castaic, CA" is in california; "Reykjanes Ridge" is in reykjanes-ridge.
function place(text) {
  const region = text.split(", ").at(-1).replace(/^\d+km [NESW]+ of /, "");
  const token = region.normalize("NFD").replace(/[\u0300-\u036f]/g, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  return PLACES[token] ?? token;
}

const lines = feed.features
  .toSorted((a, b) => a.properties.time - b.properties.time || (a.id < b.id ? -1 : 1))
  .map((feature) => JSON.stringify({
    id: feature.id,
    subject: `quake.${magnitudeClass(feature.properties.mag)}.${place(feature.properties.place)}`,
    content_type: "application/geo+json",
    data: feature,
  }));

writeFileSync(new URL("../earthquakes.ndjson", import.meta.url), lines.join("\n") + "\n");
console.log(`${lines.length} earthquakes, ${new Date(feed.features.at(-1).properties.time).toISOString()} to ${new Date(feed.features[0].properties.time).toISOString()}`);
