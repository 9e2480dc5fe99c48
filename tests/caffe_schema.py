"""Caffe's published schema (caffe.proto), as far as a net needs it, for the protobuf library."""
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from other_nets import LAYERS

Field = descriptor_pb2.FieldDescriptorProto
INT, FLOAT, DOUBLE, TEXT = Field.TYPE_INT64, Field.TYPE_FLOAT, Field.TYPE_DOUBLE, Field.TYPE_STRING
# message -> (field, number, type or message, how often: 1, "many" or "packed")
SCHEMA = {
    "BlobShape": [("dim", 1, INT, "packed")],
    "BlobProto": [("num", 1, INT, 1), ("channels", 2, INT, 1), ("height", 3, INT, 1),
                  ("width", 4, INT, 1), ("data", 5, FLOAT, "packed"), ("diff", 6, FLOAT, "packed"),
                  ("shape", 7, "BlobShape", 1), ("double_data", 8, DOUBLE, "packed")],
    "ConvolutionParameter": [("num_output", 1, INT, 1), ("pad", 3, INT, "many"),
                             ("kernel_size", 4, INT, "many"), ("group", 5, INT, 1),
                             ("stride", 6, INT, "many")],
    "PoolingParameter": [("pool", 1, INT, 1), ("kernel_size", 2, INT, 1), ("stride", 3, INT, 1)],
    "LRNParameter": [("local_size", 1, INT, 1), ("alpha", 2, FLOAT, 1), ("beta", 3, FLOAT, 1)],
    "V1LayerParameter": [("bottom", 2, TEXT, "many"), ("top", 3, TEXT, "many"),
                         ("name", 4, TEXT, 1), ("type", 5, INT, 1),
                         ("blobs", 6, "BlobProto", "many"),
                         ("blobs_lr", 7, FLOAT, "many"),
                         ("convolution_param", 10, "ConvolutionParameter", 1),
                         ("lrn_param", 18, "LRNParameter", 1),
                         ("pooling_param", 19, "PoolingParameter", 1)],
    "LayerParameter": [("name", 1, TEXT, 1), ("type", 2, TEXT, 1), ("bottom", 3, TEXT, "many"),
                       ("top", 4, TEXT, "many"), ("blobs", 7, "BlobProto", "many"),
                       ("phase", 10, INT, 1),
                       ("convolution_param", 106, "ConvolutionParameter", 1),
                       ("lrn_param", 118, "LRNParameter", 1),
                       ("pooling_param", 121, "PoolingParameter", 1)],
    "NetParameter": [("name", 1, TEXT, 1), ("layers", 2, "V1LayerParameter", "many"),
                     ("layer", 100, "LayerParameter", "many")],
}
TYPES = dict(conv=(4, "Convolution"), dense=(14, "InnerProduct"), lrn=(15, "LRN"),
             pool=(17, "Pooling"), relu=(18, "ReLU"))


def messages():
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for own, number, kind, often in fields:
            field = message.field.add(name=own, number=number, label=1 if often == 1 else 3)
            if isinstance(kind, str):
                field.type, field.type_name = Field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = kind
            field.options.packed = often == "packed"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def caffemodel(net, form):
    """bvlc_alexnet as the library writes it. form: "today" or "2014"."""
    whole = messages()(name="AlexNet")
    for name in LAYERS:
        after = {"conv1": ("relu", "lrn", "pool"), "conv2": ("relu", "lrn", "pool"),
                 "conv5": ("relu", "pool"), "fc8": ()}.get(name, ("relu",))
        for kind in ("conv" if "conv" in name else "dense", *after):
            own = whole.layer.add() if form == "today" else whole.layers.add()
            own.name, own.type = name + kind, TYPES[kind][form == "today"]
            own.bottom.append("x")
            own.top.append("x")
            if kind == "conv":
                pad = {"conv1": 0, "conv2": 2}.get(name, 1)
                own.convolution_param.pad.extend([pad] if pad else [])
                own.convolution_param.stride.append(4 if name == "conv1" else 1)
                own.convolution_param.group = 1 if name in ("conv1", "conv3") else 2
            if kind == "lrn":
                own.lrn_param.local_size, own.lrn_param.alpha = 5, 1e-4
            if kind == "pool":
                own.pooling_param.kernel_size, own.pooling_param.stride = 3, 2
            for what in ("weight", "bias") if kind in ("conv", "dense") else ():
                array, blob = net[f"{name}.{what}"], own.blobs.add()
                if form == "today":
                    blob.shape.dim.extend(array.shape)
                    blob.double_data.extend(array.ravel().tolist())
                else:
                    four = (1,) * (4 - array.ndim) + array.shape
                    blob.num, blob.channels, blob.height, blob.width = four
                    blob.data.extend(array.ravel().tolist())
                    blob.diff.extend([0.0] * array.size)
    return whole.SerializeToString()
