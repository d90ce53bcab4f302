"""Print what TensorBoard reads from a folder of event files, for tensorboard_writer_test.cpp."""

import hashlib
import sys

from tensorboard.backend.event_processing import event_accumulator


def main(folder):
    accumulator = event_accumulator.EventAccumulator(
        folder, size_guidance={kind: 0 for kind in event_accumulator.DEFAULT_SIZE_GUIDANCE}
    )
    accumulator.Reload()
    tags = accumulator.Tags()
    for tag in sorted(tags["scalars"]):
        for event in accumulator.Scalars(tag):
            print("scalar", tag, event.step, event.wall_time, event.value)
    for tag in sorted(tags["tensors"]):
        metadata = accumulator.SummaryMetadata(tag)
        for event in accumulator.Tensors(tag):
            text = event.tensor_proto.string_val[0].decode()
            print(metadata.plugin_data.plugin_name, tag, event.step, repr(text))
    for tag in sorted(tags["histograms"]):
        for event in accumulator.Histograms(tag):
            value = event.histogram_value
            sums = [value.min, value.max, value.num, value.sum, value.sum_squares]
            print("histogram", tag, event.step, *sums, len(value.bucket_limit), sum(value.bucket))
    for tag in sorted(tags["images"]):
        for event in accumulator.Images(tag):
            digest = hashlib.sha256(event.encoded_image_string).hexdigest()
            print("image", tag, event.step, event.width, event.height, digest)


if __name__ == "__main__":
    main(sys.argv[1])
