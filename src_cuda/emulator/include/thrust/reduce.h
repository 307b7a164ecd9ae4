// Included by the fork, which uses nothing of it in what is emulated.
#include <functional>
