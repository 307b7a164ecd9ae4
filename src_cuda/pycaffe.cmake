# pycaffe: the fork's _caffe.cpp for the Python in PYTHON, with our package files over the fork's.
function(ask_python result code)
  execute_process(COMMAND ${PYTHON} -c "${code}" OUTPUT_VARIABLE answer RESULT_VARIABLE status ERROR_VARIABLE trouble
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${PYTHON} does not answer: ${trouble}")
  endif()
  set(${result} ${answer} PARENT_SCOPE)
endfunction()
ask_python(PYTHON_INCLUDE "import sysconfig; print(sysconfig.get_path('include'))")
ask_python(PYTHON_VERSION "import sys; print('%d%d' % sys.version_info[:2])")
ask_python(NUMPY_INCLUDE "import numpy; print(numpy.get_include())")
ask_python(PYTHON_SUFFIX "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
find_package(Boost REQUIRED COMPONENTS python${PYTHON_VERSION})

add_library(pycaffe MODULE ${CAFFE_SOURCE}/python/caffe/_caffe.cpp)
target_include_directories(pycaffe SYSTEM PRIVATE ${NUMPY_INCLUDE} ${PYTHON_INCLUDE})
target_link_libraries(pycaffe PRIVATE caffe Boost::python${PYTHON_VERSION})
set(PYCAFFE_FOLDER ${CMAKE_BINARY_DIR}/python/caffe)
set(MODULE_RPATH "$ORIGIN/../../lib" ${CUDA_FOLDERS})
set_target_properties(pycaffe PROPERTIES OUTPUT_NAME _caffe PREFIX "" SUFFIX ${PYTHON_SUFFIX} INSTALL_RPATH "${MODULE_RPATH}"
                      LIBRARY_OUTPUT_DIRECTORY ${PYCAFFE_FOLDER})

if(NOT CAFFE_PB2)
  set(CAFFE_PB2 ${PROTO_FOLDER}/caffe_pb2.py)
endif()
# Copied at every build, so that an edited file comes along: the fork's first, then ours over them.
file(GLOB PACKAGE CONFIGURE_DEPENDS ${CAFFE_SOURCE}/python/caffe/*.py)
add_custom_target(pycaffe_files ALL
  COMMAND ${CMAKE_COMMAND} -E make_directory ${PYCAFFE_FOLDER}
  COMMAND ${CMAKE_COMMAND} -E copy_if_different ${PACKAGE} ${PYCAFFE_FOLDER}
  COMMAND ${CMAKE_COMMAND} -E copy_directory ${OURS}/python ${PYCAFFE_FOLDER}
  COMMAND ${CMAKE_COMMAND} -E copy_if_different ${CAFFE_PB2} ${PYCAFFE_FOLDER}/proto/messages_pb2.py
  VERBATIM)
install(TARGETS pycaffe DESTINATION python/caffe)
install(DIRECTORY ${PYCAFFE_FOLDER} DESTINATION python
        FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE PATTERN "test" EXCLUDE)
