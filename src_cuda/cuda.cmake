# The GPU half of CMakeLists.txt, read with -DCUDA=ON: CUDA 12 or 13, with cuDNN 8 or 9 unless -DCUDNN=OFF.
#
#   ninja -C build cuda_objects     compiles every .cu and links nothing: needs nvcc and headers, no GPU and no driver
#
# cuBLAS, cuRAND and cuDNN are looked for in the toolkit, and in the folder CUDA_PACKAGES: the `nvidia` folder of the
# site-packages where pip put nvidia-cublas, nvidia-curand and nvidia-cudnn-cu13.
set(CUDA_PACKAGES "$ENV{CUDA_PACKAGES}" CACHE PATH "Folder `nvidia` of the site-packages that hold cuBLAS, cuRAND, cuDNN")
if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  # Machine code for Turing to Hopper, and 9.0's assembly for what comes after.
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90 CACHE STRING "GPUs to compile for")
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# need_cuda_library(NAME HEADER SONAME...): a header and a library of the toolkit or of pip's packages, which carry the
# numbered library alone.
file(GLOB PACKAGE_FOLDERS ${CUDA_PACKAGES}/*)
function(need_cuda_library name header)
  find_path(${name}_INCLUDE ${header} HINTS ${PACKAGE_FOLDERS} PATH_SUFFIXES include
            PATHS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  find_library(${name}_LIBRARY NAMES ${name} ${ARGN} HINTS ${PACKAGE_FOLDERS} PATH_SUFFIXES lib lib64
               PATHS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
  if(NOT ${name}_INCLUDE OR NOT ${name}_LIBRARY)
    message(FATAL_ERROR "${name} (${header}) was not found: install it with the CUDA toolkit, or with pip and set "
                        "CUDA_PACKAGES to site-packages/nvidia")
  endif()
  get_filename_component(folder ${${name}_LIBRARY} DIRECTORY)
  set(CUDA_FOLDERS ${CUDA_FOLDERS} ${folder} PARENT_SCOPE)
  target_include_directories(settings SYSTEM INTERFACE ${${name}_INCLUDE})
  target_link_libraries(settings INTERFACE ${${name}_LIBRARY})
endfunction()
need_cuda_library(cublas cublas_v2.h libcublas.so.13 libcublas.so.12)
need_cuda_library(curand curand.h libcurand.so.10)
if(CUDNN)
  need_cuda_library(cudnn cudnn.h libcudnn.so.9 libcudnn.so.8)
  target_compile_definitions(settings INTERFACE USE_CUDNN)
endif()
# C++ files read CUDA's headers too, and two of the fork's read Thrust's, which lie in a folder of their own since 13.
target_include_directories(settings SYSTEM INTERFACE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
foreach(folder IN LISTS CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES)
  if(EXISTS ${folder}/cccl)
    target_include_directories(settings SYSTEM INTERFACE ${folder}/cccl)
  endif()
endforeach()
find_package(CUDAToolkit REQUIRED)
target_link_libraries(settings INTERFACE CUDA::cudart)
target_compile_options(settings INTERFACE
  # Of the fork's code: unused variables, and comparing int with size_t.
  "$<$<COMPILE_LANGUAGE:CUDA>:-diag-suppress=177,550;-Wno-deprecated-gpu-targets>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wno-deprecated-declarations>")

# add_cuda_objects(): every .cu, the fork's and ours, into libcaffe.
function(add_cuda_objects)
  collect(CUDA_SOURCES cu)
  add_library(cuda_objects OBJECT ${CUDA_SOURCES})
  target_link_libraries(cuda_objects PRIVATE settings)
  add_dependencies(cuda_objects messages)
  set_source_files_properties(${FORK}/layers/proposal_layer.cu PROPERTIES
    COMPILE_OPTIONS "-include;${OURS}/compat/proposal_layer.cuh")
  target_sources(caffe PRIVATE $<TARGET_OBJECTS:cuda_objects>)
  set_target_properties(caffe PROPERTIES INSTALL_RPATH "$ORIGIN;${CUDA_FOLDERS}")
endfunction()
