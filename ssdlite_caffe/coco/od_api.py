"""The TensorFlow Object Detection API's label map as a protobuf message, for reading its `.pbtxt` files."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message


@cache
def label_map_message() -> type[Message]:
    """The OD API's label map message with the fields read here, under the numbers that they have in its .proto."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="od_api_label_map.proto")
    item = file.message_type.add(name="StringIntLabelMapItem")
    item.field.add(name="name", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    item.field.add(name="id", number=2, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    item.field.add(name="display_name", number=3, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    file.message_type.add(name="StringIntLabelMap").field.add(
        name="item", number=1, type=kinds.TYPE_MESSAGE, type_name=item.name, label=kinds.LABEL_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("StringIntLabelMap"))
