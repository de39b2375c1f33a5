// node build.mjs FOLDER: the page as files; names below assets/ have a digest of what they hold.
import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "esbuild";

const folder = process.argv[2];
if (folder === undefined) throw new Error("usage: node build.mjs FOLDER");
rmSync(folder, { recursive: true, force: true });
const { metafile } = await build({
  entryPoints: ["src/main.tsx"],
  outdir: join(folder, "assets"),
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "eof",
  metafile: true,
});
const made = Object.keys(metafile.outputs).map((path) => basename(path));
const of = (ending) => `assets/${made.find((name) => name.endsWith(ending))}`;
const index = readFileSync("index.html", "utf8").replace("%SCRIPT%", of(".js")).replace("%STYLE%", of(".css"));
writeFileSync(join(folder, "index.html"), index);
copyFileSync("icon.svg", join(folder, "icon.svg"));
