"""What another program than Caffe needs beside the net: decoders for its raw outputs."""
