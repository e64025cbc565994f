//! The engines that compute a decoder.
