// Included by the fork's math_functions.cu and softmax_layer.cu, which use nothing of it.
