// What the page makes of a volume of values, without a browser. Standard input: { sources, encoded, size, places,
// samples }; prints { values, words, back, planes, places, placements, samples }.

import { readFileSync } from "node:fs";
import { Measure } from "../../viewer/values/measure.js";
import { Sample } from "../../viewer/values/sample.js";
import { placementOf, planesOf, spotOf } from "../../viewer/values/space.js";

const { sources, encoded, size, places, samples } = JSON.parse(readFileSync(0, "utf8"));
const measures = sources.map((source) => new Measure(source));
const read = (measure) => encoded.map((number) => measure.read(number));
console.log(JSON.stringify({
    values: measures.map((measure) => encoded.map((number) => measure.valueOf(number))),
    words: measures.map(read),
    back: measures.map((measure) => encoded.map((number) => measure.numberOf(measure.valueOf(number)))),
    planes: places.map((source) => planesOf(size, source)),
    places: places.map((source) => spotOf([3, 5, 7], source)),
    placements: places.map((source) => placementOf(size, source)),
    samples: samples.map((numbers) => {
        const sample = new Sample(Float32Array.from(numbers));
        return { otsu: sample.otsu, ends: [0.01, 0.99].map((part) => sample.quantile(part)) };
    }),
}));
