// The same request as code to copy. The key comes from the environment and is never written down.

import { pathOf } from "./predict.js";

/**
 * @param {{base: string, model: string, version: string, task: string, parameters: any, file: string, rows: unknown[][] | null,
 *   hasKey: boolean, metadata: any}} about `base`: address of the server, with a slash at its end
 * @returns {{name: string, code: string}[]}
 */
export function snippets(about) {
  const made = [];
  if (about.file || about.rows) made.push({ name: "curl", code: curl(about) }, { name: "Python (httpx)", code: httpx(about) });
  return [...made, { name: "tritonclient", code: triton(about) }, { name: "kserve", code: kserve(about) }];
}

function curl({ base, model, version, parameters, file, rows, hasKey }) {
  const key = hasKey ? ` -H "Authorization: Bearer $NEREID_API_KEY"` : "";
  const body = rows ? `-H 'Content-Type: application/json' -d ${shell(JSON.stringify(rows))}` : `-F ${shell(`image=@${curlName(file)}`)}`;
  return `curl -s${key} ${body} ${shell(base + pathOf(model, version, parameters))}\n`;
}

/** A name as curl's `-F` reads it: in quotes where it has a mark of its own. */
function curlName(name) {
  return /[,;"\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name;
}

function httpx({ base, model, version, parameters, file, rows, hasKey }) {
  const url = python(base + pathOf(model, version, {}));
  const options = [
    Object.keys(parameters).length && `params=${python(parameters)}`,
    rows ? `json=${python(rows)}` : 'files={"image": image}',
    hasKey && "headers=key",
    "timeout=60",
  ].filter(Boolean).join(", ");
  const post = `response = httpx.post(${url}, ${options}).raise_for_status().json()`;
  const send = rows ? post : `with open(${python(file)}, "rb") as image:\n    ${post}`;
  return `${hasKey ? "import os\n\n" : ""}import httpx\n\n${keyLine(hasKey)}${send}\nprint(response["predictions"])\n`;
}

function triton({ base, model, version, parameters, file, rows, hasKey, metadata }) {
  const { protocol, host, pathname } = new URL(base);
  const address = python(host + pathname.replace(/\/$/, ""));
  const options = [
    python(model),
    "inputs",
    version && `model_version=${python(version)}`,
    Object.keys(parameters).length && `parameters=${python(flat(parameters))}`,
    hasKey && "headers=dict(key)",
  ].filter(Boolean).join(", ");
  const secure = protocol === "https:" ? ", ssl=True" : "";
  return `${hasKey ? "import os\n\n" : ""}import numpy as np
import tritonclient.http as triton

${keyLine(hasKey)}inputs = []
for name, datatype, array in [${tensors(metadata, file, rows)}]:
    inputs.append(triton.InferInput(name, list(array.shape), datatype))
    inputs[-1].set_data_from_numpy(array)
with triton.InferenceServerClient(${address}${secure}) as client:
    result = client.infer(${options})
for output in result.get_response()["outputs"]:
    print(output["name"], result.as_numpy(output["name"]))
`;
}

function kserve({ base, model, version, parameters, file, rows, hasKey, metadata }) {
  const named = python(version ? `${model}/versions/${version}` : model);
  const given = Object.keys(parameters).length ? `, parameters=${python(flat(parameters))}` : "";
  return `import asyncio
${hasKey ? "import os\n" : ""}
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

${keyLine(hasKey)}inputs = []
for name, datatype, array in [${tensors(metadata, file, rows)}]:
    inputs.append(InferInput(name, list(array.shape), datatype))
    inputs[-1].set_data_from_numpy(array)


async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        request = InferRequest(${python(model)}, inputs${given})
        response = await client.infer(${python(base.replace(/\/$/, ""))}, request, model_name=${named}${hasKey ? ", headers=dict(key)" : ""})
    for output in response.outputs:
        print(output.name, output.data)


asyncio.run(main())
`;
}

/** Python of the tensors: name, datatype, array. */
function tensors(metadata, file, rows) {
  if (file) return `("image", "BYTES", np.array([open(${python(file)}, "rb").read()], object))`;
  const { inputs } = metadata;
  if (!rows) return inputs.map(example).join(", ");
  const number = (value) => (value === null ? "np.nan" : python(value));
  if (inputs.length === 1 && inputs[0].datatype !== "BYTES") {
    const array = rows.map((row) => `[${row.map(number).join(", ")}]`).join(", ");
    return `(${python(inputs[0].name)}, "FP64", np.array([${array}], np.float64))`;
  }
  return inputs.map(({ name, datatype }, index) => {
    const column = rows.map((row) => row[index]);
    if (datatype !== "BYTES") return `(${python(name)}, "FP64", np.array([${column.map(number).join(", ")}], np.float64))`;
    const texts = column.map((value) => `${python(value === null ? "" : String(value))}.encode()`);
    return `(${python(name)}, "BYTES", np.array([${texts.join(", ")}], object))`;
  }).join(", ");
}

const DTYPES = { BOOL: "bool_", FP16: "float16", FP32: "float32", FP64: "float64", BYTES: "object_" };

/** Zeros in the shape of a model's own tensor, one for each free dim. */
function example({ name, datatype, shape }) {
  const dtype = DTYPES[datatype] ?? datatype.toLowerCase();
  const dims = `[${shape.map((each) => Math.max(each, 1)).join(", ")}]`;
  const array = datatype === "BYTES" ? `np.full(${dims}, b"", np.object_)` : `np.zeros(${dims}, np.${dtype})`;
  return `(${python(name)}, ${python(datatype)}, ${array})`;
}

function keyLine(hasKey) {
  return hasKey ? `key = {"authorization": f"Bearer {os.environ['NEREID_API_KEY']}"}\n` : "";
}

/** Parameters of v2 are single values: names of classes are separated by commas. */
function flat({ classes, ...parameters }) {
  return classes ? { ...parameters, classes: classes.join(",") } : parameters;
}

/** A literal of Python; JSON's are, but for three names. */
function python(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${python(name)}: ${python(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}

function shell(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
