// Runs a graph model in TensorFlow.js: node run_tensorflowjs.js FOLDER INPUTS SIDE
//
// INPUTS are the bytes of float32 images (batch, SIDE, SIDE, 3). Prints a JSON object: the version,
// and the values of each output by name.

const fs = require("fs");
const path = require("path");
const tf = require("@tensorflow/tfjs");

async function main(folder, inputs, side) {
  const {weightsManifest, ...model} = JSON.parse(fs.readFileSync(path.join(folder, "model.json")));
  const files = weightsManifest.flatMap((group) => group.paths);
  const weights = Buffer.concat(files.map((file) => fs.readFileSync(path.join(folder, file))));
  const network = await tf.loadGraphModel(tf.io.fromMemory({
    ...model,
    weightSpecs: weightsManifest.flatMap((group) => group.weights),
    weightData: new Uint8Array(weights).buffer,
  }));
  const images = new Float32Array(new Uint8Array(fs.readFileSync(inputs)).buffer);
  const outputs = network.predict(tf.tensor(images, [images.length / (side * side * 3), side, side, 3]));
  const values = {};
  for (const [name, output] of Object.entries(outputs)) values[name] = await output.array();
  console.log(JSON.stringify({version: tf.version.tfjs, values}));
}

main(process.argv[2], process.argv[3], Number(process.argv[4]));
