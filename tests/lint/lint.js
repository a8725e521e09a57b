// Checks openapi/openapi.json by Spectral's rules for OpenAPI, and openapi/asyncapi.json by its rules for AsyncAPI and by AsyncAPI's own
// parser; then each example of a message by the message's schemas, which neither does for AsyncAPI 3. Prints every finding, and fails when
// there is one, of whatever severity.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";
import spectral from "@stoplight/spectral-core";
import parsers from "@stoplight/spectral-parsers";
import { Ajv } from "ajv";
import formats from "ajv-formats";
import { asyncapiRules, openapiRules } from "./rules.js";

const SEVERITY = ["error", "warning", "information", "hint"];

async function bySpectral(file, text, rules) {
  const linter = new spectral.Spectral();
  linter.setRuleset(rules);
  return linter.run(new spectral.Document(text, parsers.Json, file));
}

async function byParser(text) {
  const { document, diagnostics } = await new Parser({ ruleset: { core: true, recommended: false } }).parse(text);
  if (!document) return diagnostics;
  const messages = document.components().messages().all();
  console.log(`  ${document.channels().length} channels, ${document.operations().length} operations, ${messages.length} messages`);
  return [...diagnostics, ...messages.flatMap(byExample)];
}

const schemas = formats.default(new Ajv({ strict: false, allErrors: true }));

/** What is wrong with a message's examples. */
function byExample(message) {
  const finding = (text) => ({ severity: 0, code: "example", message: text, path: ["components", "messages", message.id()] });
  const examples = message.examples().all();
  const wrong = examples.flatMap((example) =>
    [["payload", message.payload(), example.payload()], ["headers", message.headers(), example.headers()]]
      .filter(([, schema, value]) => schema && !schemas.validate(schema.json(), value))
      .map(([part]) => finding(`the ${part} of an example: ${schemas.errorsText()}`)),
  );
  return examples.length ? wrong : [finding("there is no example")];
}

const root = new URL("../../", import.meta.url);
const documents = [
  ["openapi/openapi.json", [(file, text) => bySpectral(file, text, openapiRules)]],
  ["openapi/asyncapi.json", [(file, text) => bySpectral(file, text, asyncapiRules), (_, text) => byParser(text)]],
];

let found = 0;
for (const [file, checks] of documents) {
  console.log(file);
  const text = await readFile(new URL(file, root), "utf8");
  for (const check of checks) {
    for (const { severity, code, message, path, range } of await check(file, text)) {
      found += 1;
      const line = range ? `, line ${range.start.line + 1}` : "";
      console.log(`  ${SEVERITY[severity]} ${code}${line}, ${path.join("/")}: ${message}`);
    }
  }
}
console.log(`${documents.length} documents, ${found} findings`);
process.exitCode = found ? 1 : 0;
