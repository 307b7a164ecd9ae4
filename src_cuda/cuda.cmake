# The GPU half of CMakeLists.txt, read with -DCUDA=ON: CUDA 12 or 13, with cuDNN 8 or 9 unless -DCUDNN=OFF.
#
#   ninja -C build own_cuda_objects fork_cuda_objects
#
# compiles every .cu, ours and the fork's, and links nothing: it needs nvcc and headers, no GPU and no driver.
#
# cuBLAS, cuRAND and cuDNN are looked for in the compiler's toolkit, and in the folder CUDA_PACKAGES: the `nvidia` folder
# of the site-packages where pip put nvidia-cublas, nvidia-curand and nvidia-cudnn-cu13 (and, it may be, nvcc itself).
set(CUDA_PACKAGES "$ENV{CUDA_PACKAGES}" CACHE PATH "Folder `nvidia` of the site-packages that hold cuBLAS, cuRAND, cuDNN")
if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  # Machine code for Turing, Ampere and Ada (8.0's runs on every 8.x) and Hopper, and 9.0's assembly for what comes after.
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90 CACHE STRING "GPUs to compile for")
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # found below: pip's has no libcudart.so that a bare -lcudart would find
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# C++ files read CUDA's headers too, and two of the fork's read Thrust's, which lie in a folder of their own since 13. They
# come first: pip's packages may hold headers of another version than the compiler's.
target_include_directories(settings SYSTEM INTERFACE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
foreach(folder IN LISTS CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES)
  if(EXISTS ${folder}/cccl)
    target_include_directories(settings SYSTEM INTERFACE ${folder}/cccl)
  endif()
endforeach()

# need_cuda_library(NAME HEADER SONAME...): a header and a library of the toolkit or of pip's packages, which carry the
# numbered library alone; the number comes first, so that no other version's is taken.
file(GLOB PACKAGE_FOLDERS ${CUDA_PACKAGES}/*)
function(need_cuda_library name header)
  find_path(${name}_INCLUDE ${header} HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} ${PACKAGE_FOLDERS}
            PATH_SUFFIXES include)
  find_library(${name}_LIBRARY NAMES ${ARGN} ${name} HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} ${PACKAGE_FOLDERS}
               PATH_SUFFIXES lib lib64)
  if(NOT ${name}_INCLUDE OR NOT ${name}_LIBRARY)
    message(FATAL_ERROR "${name} (${header}) was not found: install it with the CUDA toolkit, or with pip and set "
                        "CUDA_PACKAGES to site-packages/nvidia")
  endif()
  get_filename_component(folder ${${name}_LIBRARY} DIRECTORY)
  set(CUDA_FOLDERS ${CUDA_FOLDERS} ${folder} PARENT_SCOPE)
  target_include_directories(settings SYSTEM INTERFACE ${${name}_INCLUDE})
  target_link_libraries(settings INTERFACE ${${name}_LIBRARY})
endfunction()
string(REGEX MATCH "^[0-9]+" CUDA_MAJOR ${CMAKE_CUDA_COMPILER_VERSION})
need_cuda_library(cudart cuda_runtime.h libcudart.so.${CUDA_MAJOR})
need_cuda_library(cublas cublas_v2.h libcublas.so.${CUDA_MAJOR})
need_cuda_library(curand curand.h libcurand.so.10)
if(CUDNN)
  need_cuda_library(cudnn cudnn.h libcudnn.so.9 libcudnn.so.8)
  target_compile_definitions(settings INTERFACE USE_CUDNN)
endif()
target_compile_options(settings INTERFACE
  # Of the fork's code: unused variables, and comparing int with size_t.
  "$<$<COMPILE_LANGUAGE:CUDA>:-diag-suppress=177,550;-Wno-deprecated-gpu-targets>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wno-deprecated-declarations>")

# together(RESULT SIZE FILE...): files that include SIZE of these each. Most of a file's time goes into the headers, those
# of the messages above all. CMake's own unity build knows .cu files from 3.31 on.
function(together result size)
  set(count 0)
  foreach(file IN LISTS ARGN)
    math(EXPR last "${count} / ${size}")
    string(APPEND text_${last} "#include \"${file}\"\n")
    math(EXPR count "${count} + 1")
  endforeach()
  foreach(number RANGE ${last})
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/together/${number}.cu CONTENT "${text_${number}}")
    list(APPEND files ${CMAKE_BINARY_DIR}/together/${number}.cu)
  endforeach()
  set(${result} ${files} PARENT_SCOPE)
endfunction()

# add_cuda_objects(): every .cu, the fork's and ours, into libcaffe.
function(add_cuda_objects)
  collect(theirs cu)
  set(own ${theirs})
  list(FILTER own INCLUDE REGEX "^${OURS}/")
  list(FILTER theirs EXCLUDE REGEX "^${OURS}/")
  set(alone ${OURS}/layers/depthwise_conv_layer.cu)  # by itself as long as several others
  list(REMOVE_ITEM own ${alone})
  together(own 4 ${own})
  list(APPEND own ${alone})
  add_library(own_cuda_objects OBJECT ${own})
  add_library(fork_cuda_objects OBJECT ${theirs})
  foreach(objects own_cuda_objects fork_cuda_objects)
    target_link_libraries(${objects} PRIVATE settings)
    add_dependencies(${objects} messages)
    target_sources(caffe PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
  set_source_files_properties(${FORK}/layers/proposal_layer.cu PROPERTIES
    COMPILE_OPTIONS "-include;${OURS}/compat/proposal_layer.cuh")
  set_source_files_properties(${FORK}/common.cpp PROPERTIES
    COMPILE_OPTIONS "-include;${OURS}/compat/device_properties.hpp")
  set_source_files_properties(${FORK}/layers/pixelshuffle_layer.cpp ${FORK}/layers/upsample_layer.cpp PROPERTIES
    COMPILE_OPTIONS "-include;${OURS}/compat/cpu_sides.hpp")
  # A shared library may leave functions undefined until it is loaded: GPU code that is declared and not there would.
  target_link_options(caffe PRIVATE LINKER:--no-undefined)
endfunction()
