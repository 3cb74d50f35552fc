// Reads DICOM files with dcmjs (its path is the first argument) and prints for each what a viewer would make of it:
// kind, voxels of each segment, finding, tracking UID and values of each measurement group, referenced instances.
const fs = require("fs");
const [, , library, ...files] = process.argv;
const { BitArray, DicomMessage, DicomMetaDictionary } = require(require("path").resolve(library)).data;

const list = (value) => (value === undefined ? [] : Array.isArray(value) ? value : [value]);
const first = (value) => list(value)[0];
const concept = (item) => (first(item.ConceptNameCodeSequence) || {}).CodeValue;
const items = (item) => list(item.ContentSequence).flatMap((child) => [child, ...items(child)]);

function pixels(dataset) {
    const stored = new Uint8Array(first(dataset.PixelData));
    return dataset.BitsAllocated === 1 ? BitArray.unpack(stored.buffer.slice(stored.byteOffset, stored.byteOffset + stored.length)) : stored;
}

function voxels(dataset) {
    const counts = {};
    const values = pixels(dataset);
    const size = dataset.Rows * dataset.Columns;
    const shared = first(dataset.SharedFunctionalGroupsSequence) || {};
    list(dataset.PerFrameFunctionalGroupsSequence).forEach((groups, frame) => {
        const identification = first(groups.SegmentIdentificationSequence || shared.SegmentIdentificationSequence);
        for (let index = frame * size; index < (frame + 1) * size; index++) {
            if (!values[index]) continue;
            const number = identification ? identification.ReferencedSegmentNumber : values[index];
            counts[number] = (counts[number] || 0) + 1;
        }
    });
    return counts;
}

function group(container) {
    const content = list(container.ContentSequence);
    const find = (code) => content.find((item) => concept(item) === code) || {};
    return {
        finding: (first(find("121071").ConceptCodeSequence) || {}).CodeValue,
        tracking: find("112040").UID,
        values: content.filter((item) => item.ValueType === "NUM").map((item) => Number(first(item.MeasuredValueSequence).NumericValue)),
    };
}

const answers = files.map((file) => {
    const bytes = fs.readFileSync(file);
    const { dict } = DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const dataset = DicomMetaDictionary.naturalizeDataset(dict);
    return {
        modality: dataset.Modality,
        instance: dataset.SOPInstanceUID,
        description: dataset.SeriesDescription,
        voxels: dataset.SegmentSequence ? voxels(dataset) : {},
        groups: items(dataset).filter((item) => item.ValueType === "CONTAINER" && concept(item) === "125007").map(group),
    };
});
process.stdout.write(JSON.stringify(answers));
