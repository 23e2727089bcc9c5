// For each text of a JSON array in a file, a line: the types of its syntax tree's nodes, as the parser inside of node
// (acorn, hence --expose-internals) finds them, or what the parser says.
const { readFileSync } = require("fs");
const { parse } = require("internal/deps/acorn/acorn/dist/acorn");

function kinds(node) {
  if (Array.isArray(node)) return `[${node.map(kinds).join("")}]`;
  if (node === null || typeof node !== "object" || typeof node.type !== "string") return "";
  const own = node.type === "Literal" ? `${node.type}:${typeof node.value}` : node.type;
  return `(${own}${Object.keys(node).map((key) => kinds(node[key])).join("")})`;
}

for (const text of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  try {
    console.log(kinds(parse(text, { ecmaVersion: "latest", sourceType: "module" })));
  } catch (error) {
    console.log(`error ${error.message}`);
  }
}
