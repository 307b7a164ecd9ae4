"""Caffe's messages: those of ssdlite_caffe where it is installed, or else the copy beside this file.

A process can register a message once only. Both are made from one caffe.proto, so that a program may use either.
"""

import sys

try:
    from ssdlite_caffe.prototxt import caffe_pb2 as _messages
except ImportError:
    from . import messages_pb2 as _messages

sys.modules[__name__] = _messages
