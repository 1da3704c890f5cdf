//! Which instructions a kernel may use, chosen at run time.

/// An instruction set with kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512F: 12 pixels x 32 channels in 24 of 32 registers.
    Avx512,
    /// AVX2 with FMA: 6 pixels x 16 channels in 12 of 16 registers.
    Avx2,
    /// Plain Rust, vectorised by the compiler as far as the target allows (NEON on aarch64).
    Portable,
}

impl Isa {
    /// Its name: part of cache keys on disk, since the same formula rounds differently with other instructions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// The fastest this processor runs.
    pub fn best() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// All that this processor runs, fastest first.
    pub fn all_available() -> impl Iterator<Item = Self> {
        [Self::Avx512, Self::Avx2, Self::Portable].into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this processor runs it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") && Self::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }

    /// This one if the processor runs it, else the best one: what makes calling the kernels sound.
    pub(super) fn checked(self) -> Self {
        if self.is_available() { self } else { Self::best() }
    }

    /// Calls `body(args)` compiled for this instruction set, so that its loops are vectorised as wide as possible.
    ///
    /// `body` must be a function marked `#[inline(always)]`, and so must be all that it calls: anything else, closures
    /// in particular, remains a separate function compiled for the baseline instruction set.
    #[inline]
    pub(super) fn vectorised<A, R>(self, args: A, body: impl FnOnce(A) -> R) -> R {
        match self.checked() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `checked` returns only what the processor has.
            Self::Avx512 => unsafe { with_avx512(args, body) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { with_avx2(args, body) },
            _ => body(args),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn with_avx512<A, R>(args: A, body: impl FnOnce(A) -> R) -> R {
    body(args)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<A, R>(args: A, body: impl FnOnce(A) -> R) -> R {
    body(args)
}

/// Calls `body(args)` compiled for this instruction set, whatever the body's size.
///
/// [`Isa::vectorised`] passes its body through a call of the standard library that the compiler inlines only if it is
/// small; here the body, which must be `#[inline(always)]` too, is called by name in one function for each instruction
/// set.
macro_rules! on_isa {
    ($isa:expr, $body:ident($($name:ident: $kind:ty = $value:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
        #[allow(clippy::too_many_arguments)]
        fn with_avx512($($name: $kind),*) {
            $body($($name),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        #[allow(clippy::too_many_arguments)]
        fn with_avx2($($name: $kind),*) {
            $body($($name),*)
        }
        match $isa.checked() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `checked` returns only what the processor has.
            $crate::nn::kernel::Isa::Avx512 => unsafe { with_avx512($($value),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::nn::kernel::Isa::Avx2 => unsafe { with_avx2($($value),*) },
            _ => $body($($value),*),
        }
    }};
}
pub(super) use on_isa;
