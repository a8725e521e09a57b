// All rules that Spectral has, but for those that are wrong for these documents, each with the reason.
import rulesets from "@stoplight/spectral-rulesets";

const { asyncapi, oas } = rulesets;

export const openapiRules = {
  extends: [[oas, "all"]],
  rules: {
    // There is no address to write to: whoever runs a node is whom its users ask.
    "info-contact": "off",
    // The licence is named by its SPDX identifier, and OpenAPI 3.1 forbids a URL beside it.
    "license-url": "off",
    // The tags are in the order in which a reader meets them.
    "openapi-tags-alphabetical": "off",
  },
};

export const asyncapiRules = {
  extends: [[asyncapi, "all"]],
  rules: {
    "asyncapi-info-contact": "off",
    "asyncapi-3-tags-alphabetical": "off",
  },
};
