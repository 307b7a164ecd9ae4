// Force-included into every C++ file: names that the fork's sources use and that today's libraries, or our caffe.proto,
// spell otherwise. Macros only, so that it costs no compile time and no order of includes can break it.
#ifndef SSDLITE_CAFFE_COMPAT_NAMES_HPP_
#define SSDLITE_CAFFE_COMPAT_NAMES_HPP_

// OpenCV 2 names, in OpenCV 4's spelling.
#define CV_CAP_PROP_FRAME_COUNT ::cv::CAP_PROP_FRAME_COUNT
#define CV_CAP_PROP_POS_FRAMES ::cv::CAP_PROP_POS_FRAMES
#define CV_FILLED ::cv::FILLED
#define CV_FOURCC ::cv::VideoWriter::fourcc
#define CV_IMWRITE_JPEG_QUALITY ::cv::IMWRITE_JPEG_QUALITY
#define CV_LOAD_IMAGE_COLOR ::cv::IMREAD_COLOR
#define CV_LOAD_IMAGE_GRAYSCALE ::cv::IMREAD_GRAYSCALE
#define CV_RGB(r, g, b) ::cv::Scalar((b), (g), (r), 0)

// The fork calls the SSD branch's ResizeParameter, and TransformationParameter.resize_param, "old".
#define OldResizeParameter ResizeParameter
#define OldResizeParameter_Resize_mode_WARP ResizeParameter_Resize_mode_WARP
#define OldResizeParameter_Resize_mode_FIT_SMALL_SIZE ResizeParameter_Resize_mode_FIT_SMALL_SIZE
#define OldResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD ResizeParameter_Resize_mode_FIT_LARGE_SIZE_AND_PAD
#define OldResizeParameter_Pad_mode_CONSTANT ResizeParameter_Pad_mode_CONSTANT
#define OldResizeParameter_Pad_mode_MIRRORED ResizeParameter_Pad_mode_MIRRORED
#define OldResizeParameter_Pad_mode_REPEAT_NEAREST ResizeParameter_Pad_mode_REPEAT_NEAREST
#define OldResizeParameter_Interp_mode_LINEAR ResizeParameter_Interp_mode_LINEAR
#define OldResizeParameter_Interp_mode_AREA ResizeParameter_Interp_mode_AREA
#define OldResizeParameter_Interp_mode_NEAREST ResizeParameter_Interp_mode_NEAREST
#define OldResizeParameter_Interp_mode_CUBIC ResizeParameter_Interp_mode_CUBIC
#define OldResizeParameter_Interp_mode_LANCZOS4 ResizeParameter_Interp_mode_LANCZOS4
#define old_resize_param resize_param
#define has_old_resize_param has_resize_param

#endif  // SSDLITE_CAFFE_COMPAT_NAMES_HPP_
