#![no_std]
//! Types that the kernel programs and userspace share.
