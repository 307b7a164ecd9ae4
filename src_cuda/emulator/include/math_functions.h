// CUDA has a header of this name, for functions that <cmath> has on the host.
#include <cmath>
