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
    base_conv conv depthwise_conv relu6 hardswish hardsigmoid clip maxunpool   # ours
    batch_norm scale bias split softmax_loss softmax dummy_data loss neuron    # of a net with them
    deconv relu sigmoid tanh pooling global_pooling lrn eltwise power)   # that layer_factory.cpp can make
set(PARTS_ALONE  # compiled by themselves: some share names that each file has for itself
    columns cpu_gemm depthwise depthwise_weights thread_pool net_forward net_passes norm_unit net_weights conv_chain packed_weights pointwise_pieces
    channel_blocks block_conv block_depthwise block_layers)
set(EMULATED_PARTS ${PARTS_ALONE}
    blob common layer net solver syncedmem layer_factory sgd_solver
    math_functions im2col bbox_util insert_splits upgrade_proto io hdf5 benchmark)
# Those of mistakes.py.
set(SEEDABLE base_conv_layer depthwise_conv_layer relu6_layer)

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
# The addresses in the program are those in its debug information, which addr2line reads.
target_link_options(emulator PUBLIC -no-pie)

# ---- Caffe for it. Headers with launches are found rewritten.
foreach(name block_sum channel_sums pointwise)
  rewritten(header ${OURS}/include/caffe/util/${name}.cuh caffe/util/${name}.cuh)
  list(APPEND HEADERS ${header})
endforeach()
rewritten(functions ${CAFFE_SOURCE}/include/caffe/util/math_functions.hpp caffe/util/math_functions.hpp)
add_custom_target(rewritten_headers DEPENDS ${HEADERS} ${functions})
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
emulated(CUDA_SOURCES cu)
foreach(file IN LISTS CUDA_SOURCES)
  get_filename_component(name ${file} NAME_WE)
  rewritten(cpp ${file} ${name}.cu.cpp)
  if(name IN_LIST SEEDABLE)
    list(APPEND SEEDABLE_KERNELS ${cpp})
  else()
    list(APPEND KERNELS ${cpp})
  endif()
endforeach()
# Object files and no library: a layer that no other file names would be left out of a program.
add_library(caffe OBJECT ${SOURCES})
target_link_libraries(caffe PRIVATE emulated)
add_library(kernels OBJECT ${KERNELS})
add_library(seedable_kernels OBJECT ${SEEDABLE_KERNELS})
target_link_libraries(kernels PRIVATE emulated kernel_settings)
target_link_libraries(seedable_kernels PRIVATE emulated kernel_settings)
# Most of the time goes into the headers, those of the messages above all: several files are compiled as one.
set_target_properties(caffe kernels PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
# It has kernels with the names of the softmax layer's.
set_source_files_properties(${REWRITTEN}/bbox_util.cu.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
foreach(name IN LISTS PARTS_ALONE)
  set_source_files_properties(${OURS}/util/${name}.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endforeach()
foreach(target caffe kernels seedable_kernels)
  add_dependencies(${target} messages rewritten_headers)
  precompiled(${target} caffe/layer.hpp caffe/util/math_functions.hpp)
endforeach()
set(CAFFE_OBJECTS $<TARGET_OBJECTS:caffe> $<TARGET_OBJECTS:kernels> $<TARGET_OBJECTS:messages>)

# ---- tests: those of the layers, which a GPU runs as well, and those of the emulator
set(EMULATED_TESTS ${OURS}/test/test_conv_layers.cpp ${OURS}/test/test_conv_gradients.cpp
    ${OURS}/test/test_depthwise_conv_layer.cpp ${OURS}/test/test_norm_layers.cpp ${OURS}/test/test_pointwise_layers.cpp ${OURS}/test/test_maxunpool_layer.cpp
    ${EMULATOR}/test/test_copies.cpp)
add_library(layer_tests OBJECT ${OURS}/test/main.cpp ${EMULATOR}/test/findings.cpp ${EMULATED_TESTS})
target_link_libraries(layer_tests PRIVATE emulated GTest::gtest)
add_dependencies(layer_tests messages rewritten_headers)
precompiled(layer_tests gtest/gtest.h caffe/net.hpp caffe/test/test_gradient_check_util.hpp)
add_executable(emulated_layer_tests $<TARGET_OBJECTS:layer_tests> ${CAFFE_OBJECTS} $<TARGET_OBJECTS:seedable_kernels>)
target_link_libraries(emulated_layer_tests PRIVATE emulated GTest::gtest)

rewritten(own ${EMULATOR}/test/test_emulator.cu test_emulator.cu.cpp)
add_executable(emulator_tests ${own} ${EMULATOR}/test/findings.cpp)
target_link_libraries(emulator_tests PRIVATE emulator kernel_settings GTest::gtest)

# ---- the layer tests once more, with mistakes in the code: three files of it, in place of those in the library
set(SEED ${EMULATOR}/test/mistakes.py)
function(seeded result file place)
  set(copy ${CMAKE_BINARY_DIR}/seeded/${place})
  get_filename_component(name ${file} NAME)
  add_custom_command(OUTPUT ${copy}
    COMMAND ${PYTHON} ${SEED} ${file} ${CMAKE_BINARY_DIR}/seeded/copies/${name}
    COMMAND ${PYTHON} ${REWRITE} ${CMAKE_BINARY_DIR}/seeded/copies/${name} ${copy}
    DEPENDS ${file} ${REWRITE} ${SEED} VERBATIM)
  set(${result} ${copy} PARENT_SCOPE)
endfunction()
foreach(name block_sum pointwise)
  seeded(header ${OURS}/include/caffe/util/${name}.cuh caffe/util/${name}.cuh)
  list(APPEND SEEDED_HEADERS ${header})
endforeach()
foreach(name IN LISTS SEEDABLE)
  seeded(cpp ${OURS}/layers/${name}.cu ${name}.cu.cpp)
  list(APPEND SEEDED ${cpp})
endforeach()
add_custom_target(seeded_headers DEPENDS ${SEEDED_HEADERS})
add_library(seeded_kernels OBJECT ${SEEDED})
target_include_directories(seeded_kernels BEFORE PRIVATE ${CMAKE_BINARY_DIR}/seeded)
target_link_libraries(seeded_kernels PRIVATE emulated kernel_settings)
add_dependencies(seeded_kernels messages rewritten_headers seeded_headers)
precompiled(seeded_kernels caffe/layer.hpp caffe/util/math_functions.hpp)
add_executable(seeded_layer_tests ${EMULATOR}/test/seeded.cpp $<TARGET_OBJECTS:seeded_kernels>
               $<TARGET_OBJECTS:layer_tests> ${CAFFE_OBJECTS})
target_link_libraries(seeded_layer_tests PRIVATE emulated GTest::gtest)
