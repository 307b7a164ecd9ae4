# Read with -DEMULATOR=ON: the layers whose GPU code is ours, and what a net of them needs, for a GPU that is emulated.
#
#   cmake -G Ninja -S src_cuda -B build/emulator -DCAFFE_SOURCE=DIR -DEMULATOR=ON
#   ninja -C build/emulator && build/emulator/bin/emulated_layer_tests
find_package(Boost REQUIRED COMPONENTS context)
find_package(GTest REQUIRED)
set(CMAKE_CXX_FLAGS_RELEASE "-O1 -DNDEBUG")
set(EMULATOR ${OURS}/emulator)
set(REWRITE ${EMULATOR}/rewrite.py)
set(REWRITTEN ${CMAKE_BINARY_DIR}/rewritten)
set(EMULATED_LAYERS
    base_conv conv depthwise_conv relu6 hardswish hardsigmoid clip maxunpool                  # ours
    batch_norm scale bias relu sigmoid tanh softmax softmax_loss smooth_L1_loss lrn pooling   # of a net with them
    power eltwise split concat slice permute flatten reshape prior_box multibox_loss
    loss neuron input dummy_data)
set(EMULATED_PARTS
    blob common layer net solver syncedmem layer_factory sgd_solver
    math_functions im2col bbox_util insert_splits upgrade_proto io hdf5 benchmark
    box_matching columns cpu_gemm depthwise depthwise_weights thread_pool)

# emulated(RESULT EXTENSION): those source files of Caffe.
function(emulated result extension)
  collect(found ${extension})
  foreach(name IN LISTS EMULATED_LAYERS)
    list(APPEND names ${name}_layer)
  endforeach()
  list(APPEND names ${EMULATED_PARTS})
  list(JOIN names "|" names)
  list(FILTER found INCLUDE REGEX "/(${names})\\.${extension}$")
  set(${result} ${found} PARENT_SCOPE)
endfunction()

# rewritten(RESULT FILE PLACE): FILE as C++ in the folder of rewritten files.
function(rewritten result file place)
  add_custom_command(OUTPUT ${REWRITTEN}/${place}
    COMMAND ${PYTHON} ${REWRITE} ${file} ${REWRITTEN}/${place}
    DEPENDS ${file} ${REWRITE} VERBATIM)
  set(${result} ${REWRITTEN}/${place} PARENT_SCOPE)
endfunction()

# ---- the device
add_library(emulator STATIC ${EMULATOR}/access.cpp ${EMULATOR}/blas.cpp ${EMULATOR}/memory.cpp ${EMULATOR}/threads.cpp)
target_include_directories(emulator PUBLIC ${EMULATOR}/include)
target_compile_options(emulator PRIVATE -O2)
target_link_libraries(emulator PUBLIC Boost::context ${openblas_openblas} ${CMAKE_DL_LIBS} ubsan)

# ---- Caffe for it. Headers with launches are found rewritten.
rewritten(pointwise ${OURS}/include/caffe/util/pointwise.cuh caffe/util/pointwise.cuh)
rewritten(functions ${CAFFE_SOURCE}/include/caffe/util/math_functions.hpp caffe/util/math_functions.hpp)
add_custom_target(rewritten_headers DEPENDS ${pointwise} ${functions})
add_library(emulated INTERFACE)
target_include_directories(emulated BEFORE INTERFACE ${REWRITTEN} ${EMULATOR}/include)
target_link_libraries(emulated INTERFACE settings emulator)
# What a kernel does: every read and write is reported to access.cpp (libtsan is not linked), arrays of a thread's own
# have their bounds checked, and what it left without a value is a large number.
add_library(kernel_settings INTERFACE)
target_compile_options(kernel_settings INTERFACE
  -g1 -fsanitize=thread -fsanitize=bounds,signed-integer-overflow,integer-divide-by-zero,shift
  -ftrivial-auto-var-init=pattern -Wno-unknown-pragmas -Wno-tsan)

emulated(SOURCES cpp)
add_library(caffe STATIC ${SOURCES} $<TARGET_OBJECTS:messages>)
emulated(CUDA_SOURCES cu)
foreach(file IN LISTS CUDA_SOURCES)
  get_filename_component(name ${file} NAME_WE)
  rewritten(cpp ${file} ${name}.cu.cpp)
  list(APPEND KERNELS ${cpp})
endforeach()
add_library(kernels OBJECT ${KERNELS})
target_link_libraries(kernels PRIVATE emulated kernel_settings)
target_sources(caffe PRIVATE $<TARGET_OBJECTS:kernels>)
target_link_libraries(caffe PUBLIC emulated)
add_dependencies(kernels messages rewritten_headers)
add_dependencies(caffe messages rewritten_headers)

# ---- tests: those of the layers, which a GPU runs as well, and those of the emulator
set(LAYER_TESTS ${OURS}/test/test_conv_layers.cpp ${OURS}/test/test_conv_gradients.cpp
    ${OURS}/test/test_depthwise_conv_layer.cpp ${OURS}/test/test_pointwise_layers.cpp)
add_executable(emulated_layer_tests ${OURS}/test/main.cpp ${EMULATOR}/test/findings.cpp ${LAYER_TESTS})
target_link_libraries(emulated_layer_tests PRIVATE caffe GTest::gtest)

rewritten(own ${EMULATOR}/test/test_emulator.cu test_emulator.cu.cpp)
add_executable(emulator_tests ${own} ${EMULATOR}/test/findings.cpp)
target_link_libraries(emulator_tests PRIVATE emulator kernel_settings GTest::gtest)
