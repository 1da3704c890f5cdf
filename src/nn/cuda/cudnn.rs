//! cuDNN: one handle for each device, descriptors and algorithms cached by shape, one workspace.
//!
//! A process uses one stream of a GPU ([`super::device::open`]), so operations run in the order of the program and need
//! no events. A lock keeps threads from using a handle at the same time.

use super::plan::{Attempt, COMPUTES_NO, Offer, Precision, WORKSPACE, eligible, first_that_runs, precision};
use crate::nn::kernel::{ConvShape, Window};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::{CudaDevice, DeviceId, cudarc};
use candle_core::{CudaStorage, DType, Error, Layout, Result, Shape, bail};
use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys::{self, cudnnMathType_t as Math, cudnnStatus_t as Status};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, sys::CUresult};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

type Forward = sys::cudnnConvolutionFwdAlgo_t;
type BackwardData = sys::cudnnConvolutionBwdDataAlgo_t;
type BackwardFilter = sys::cudnnConvolutionBwdFilterAlgo_t;

/// cuDNN's factors of the result and of the destination's previous content.
const ONE: f32 = 1.0;
const ZERO: f32 = 0.0;

fn factor(value: &f32) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

fn dnn(result: std::result::Result<(), CudnnError>) -> Result<()> {
    result.map_err(Error::wrap)
}

/// A descriptor that is destroyed with its owner.
struct Owned<D: Copy>(D, unsafe fn(D) -> sys::cudnnStatus_t);

impl<D: Copy> Drop for Owned<D> {
    fn drop(&mut self) {
        // SAFETY: made by the matching function and destroyed once. A failure at the end of a process does no harm.
        let _ = unsafe { (self.1)(self.0) };
    }
}

type TensorOwned = Owned<sys::cudnnTensorDescriptor_t>;

fn int(value: usize) -> Result<c_int> {
    c_int::try_from(value).map_err(Error::wrap)
}

fn data_type(dtype: DType) -> Result<sys::cudnnDataType_t> {
    match dtype {
        DType::F32 => Ok(sys::cudnnDataType_t::CUDNN_DATA_FLOAT),
        DType::BF16 => Ok(sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16),
        other => bail!("cuDNN operations take f32 or bf16, not {other:?}"),
    }
}

/// `[N, C, H, W]` in cuDNN's order of sizes, channels last in memory.
fn tensor(dtype: DType, [n, h, w, c]: [usize; 4]) -> Result<TensorOwned> {
    let made = result::create_tensor_descriptor().map_err(Error::wrap)?;
    let owned = Owned(made, sys::cudnnDestroyTensorDescriptor as unsafe fn(_) -> _);
    let sizes = [int(n)?, int(c)?, int(h)?, int(w)?];
    // SAFETY: the descriptor was just made.
    dnn(unsafe {
        result::set_tensor4d_descriptor(owned.0, sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, data_type(dtype)?, sizes)
    })?;
    Ok(owned)
}

/// The descriptors of one convolution and the algorithms that may compute it.
struct ConvPlan {
    x: TensorOwned,
    y: TensorOwned,
    bias: TensorOwned,
    w: Owned<sys::cudnnFilterDescriptor_t>,
    conv: Owned<sys::cudnnConvolutionDescriptor_t>,
    /// For the convolution alone, and fused with bias and ReLU.
    forward: Option<[Vec<Offer<Forward, Math>>; 2]>,
    data: Option<Vec<Offer<BackwardData, Math>>>,
    filter: Option<Vec<Offer<BackwardFilter, Math>>>,
}

fn math(dtype: DType, precision: Precision) -> Math {
    match (dtype, precision) {
        (DType::F32, Precision::F32) => Math::CUDNN_FMA_MATH,
        // For f32 the default is TF32 where the GPU has it.
        (DType::F32, _) => Math::CUDNN_DEFAULT_MATH,
        _ => Math::CUDNN_TENSOR_OP_MATH,
    }
}

impl ConvPlan {
    fn new(shape: &ConvShape, dtype: DType, precision: Precision) -> Result<Self> {
        let [h, w] = shape.input;
        let [oh, ow] = shape.output;
        let Window { kernel: [kh, kw], stride, padding: [ph, pw] } = shape.window;
        let filter = result::create_filter_descriptor().map_err(Error::wrap)?;
        let filter = Owned(filter, sys::cudnnDestroyFilterDescriptor as unsafe fn(_) -> _);
        let conv = result::create_convolution_descriptor().map_err(Error::wrap)?;
        let conv = Owned(conv, sys::cudnnDestroyConvolutionDescriptor as unsafe fn(_) -> _);
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let sizes = [int(shape.cout)?, int(shape.cin)?, int(kh)?, int(kw)?];
        // SAFETY: the descriptors were just made.
        unsafe {
            dnn(result::set_filter4d_descriptor(filter.0, data_type(dtype)?, format, sizes))?;
            dnn(result::set_convolution2d_descriptor(
                conv.0,
                int(ph)?,
                int(pw)?,
                int(stride)?,
                int(stride)?,
                1,
                1,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            ))?;
            dnn(result::set_convolution_math_type(conv.0, math(dtype, precision)))?;
        }
        Ok(Self {
            x: tensor(dtype, [shape.batch, h, w, shape.cin])?,
            y: tensor(dtype, [shape.batch, oh, ow, shape.cout])?,
            bias: tensor(dtype, [1, 1, 1, shape.cout])?,
            w: filter,
            conv,
            forward: None,
            data: None,
            filter: None,
        })
    }
}

/// Asks cuDNN for its algorithms; the structures of the three answers differ in name only.
macro_rules! offers {
    ($name:ident, $algorithm:ty, $perf:ty, $ask:path, $a:ty, $b:ty, $c:ty) => {
        /// # Safety
        /// The handle and the descriptors must be valid.
        unsafe fn $name(
            handle: sys::cudnnHandle_t,
            a: $a,
            b: $b,
            conv: sys::cudnnConvolutionDescriptor_t,
            c: $c,
        ) -> Result<Vec<Offer<$algorithm, Math>>> {
            const MOST: usize = 16;
            let mut count: c_int = 0;
            // SAFETY: plain numbers; zero is a value of each of the enums.
            let mut found: [$perf; MOST] = unsafe { std::mem::zeroed() };
            // SAFETY: the caller's promise; there is room for as many as are asked for.
            dnn(unsafe { $ask(handle, a, b, conv, c, MOST as c_int, &mut count, found.as_mut_ptr()) })?;
            let offer = |p: &$perf| Offer {
                algorithm: p.algo,
                math: p.mathType,
                works: p.status == Status::CUDNN_STATUS_SUCCESS,
                workspace: p.memory,
                deterministic: p.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
            };
            Ok(found[..usize::try_from(count).unwrap_or(0).min(MOST)].iter().map(offer).collect())
        }
    };
}

type T = sys::cudnnTensorDescriptor_t;
type F = sys::cudnnFilterDescriptor_t;
offers!(
    forward_offers,
    Forward,
    sys::cudnnConvolutionFwdAlgoPerf_t,
    result::get_convolution_forward_algorithm,
    T,
    F,
    T
);
offers!(
    data_offers,
    BackwardData,
    sys::cudnnConvolutionBwdDataAlgoPerf_t,
    result::get_convolution_backward_data_algorithm,
    F,
    T,
    T
);
offers!(
    filter_offers,
    BackwardFilter,
    sys::cudnnConvolutionBwdFilterAlgoPerf_t,
    result::get_convolution_backward_filter_algorithm,
    T,
    T,
    F
);

/// What identifies a plan: sizes, type, arithmetic.
type Key = ([usize; 11], DType, Precision);

fn key(shape: &ConvShape, dtype: DType, precision: Precision) -> Key {
    let Window { kernel, stride, padding } = shape.window;
    let sizes = [
        shape.batch,
        shape.input[0],
        shape.input[1],
        shape.cin,
        shape.cout,
        kernel[0],
        kernel[1],
        stride,
        padding[0],
        padding[1],
        shape.output[0],
    ];
    (sizes, dtype, precision)
}

/// cuDNN on one device.
pub(super) struct Engine {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    handle: Owned<sys::cudnnHandle_t>,
    plans: HashMap<Key, ConvPlan>,
    workspace: Workspace,
    /// ReLU as part of a convolution.
    relu: Owned<sys::cudnnActivationDescriptor_t>,
    /// ReLU on its own: it propagates NaN.
    relu_alone: Owned<sys::cudnnActivationDescriptor_t>,
}

// SAFETY: a handle and its descriptors may be used by any thread, one at a time; the engine stands behind a lock.
unsafe impl Send for Engine {}

/// Memory for algorithms, kept and grown as needed. Operations on one stream run one after another and can share it.
#[derive(Default)]
struct Workspace(Option<CudaSlice<u8>>);

impl Workspace {
    /// Its address, with room for `bytes` bytes; `None` if there is no memory for them.
    fn take(&mut self, stream: &Arc<CudaStream>, bytes: usize) -> Result<Option<*mut c_void>> {
        if bytes == 0 {
            return Ok(Some(std::ptr::null_mut()));
        }
        if self.0.as_ref().is_none_or(|w| w.len() < bytes) {
            self.0 = None; // freed first, on the stream after the operations that still use it
            // SAFETY: an algorithm expects nothing of its workspace.
            match unsafe { stream.alloc::<u8>(bytes) } {
                Ok(slice) => self.0 = Some(slice),
                Err(e) if e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Ok(None),
                Err(e) => return Err(Error::wrap(e)),
            }
        }
        Ok(self.0.as_ref().map(|w| w.device_ptr(stream).0 as *mut c_void))
    }
}

static ENGINES: Mutex<Vec<(DeviceId, Arc<Mutex<Engine>>)>> = Mutex::new(Vec::new());

/// Calls `f` with the device's engine.
pub(super) fn with<R>(device: &CudaDevice, f: impl FnOnce(&mut Engine) -> Result<R>) -> Result<R> {
    // Any thread may call this: the context must be bound to it.
    device.cuda_stream().context().bind_to_thread().map_err(Error::wrap)?;
    let engine = {
        let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        match engines.iter().find(|(id, _)| *id == device.id()) {
            Some((_, engine)) => Arc::clone(engine),
            None => {
                let engine = Arc::new(Mutex::new(Engine::new(device)?));
                engines.push((device.id(), Arc::clone(&engine)));
                engine
            }
        }
    };
    let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
    f(&mut engine)
}

/// An operand: contiguous values on the device.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub storage: &'a CudaStorage,
    pub layout: &'a Layout,
}

impl Operand<'_> {
    /// The address of its values. They live as long as the operand, and all that reads them is enqueued on the same
    /// stream before they can be freed on it.
    fn address(&self, op: &str, stream: &CudaStream) -> Result<*const c_void> {
        let Some((start, _)) = self.layout.contiguous_offsets() else { bail!("{op}: an operand is not contiguous") };
        let base = address(self.storage, stream)?;
        Ok((base + (start * self.storage.dtype().size_in_bytes()) as u64) as *const c_void)
    }
}

fn address(storage: &CudaStorage, stream: &CudaStream) -> Result<u64> {
    match storage.dtype() {
        DType::F32 => Ok(storage.as_cuda_slice::<f32>()?.device_ptr(stream).0),
        DType::BF16 => Ok(storage.as_cuda_slice::<half::bf16>()?.device_ptr(stream).0),
        other => bail!("cuDNN operations take f32 or bf16, not {other:?}"),
    }
}

/// The kind of a pool; averages count the padding or exclude it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolMode {
    Max,
    AverageCounted,
    AverageExcluded,
}

impl PoolMode {
    fn mode(self) -> sys::cudnnPoolingMode_t {
        match self {
            Self::Max => sys::cudnnPoolingMode_t::CUDNN_POOLING_MAX_DETERMINISTIC,
            Self::AverageCounted => sys::cudnnPoolingMode_t::CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING,
            Self::AverageExcluded => sys::cudnnPoolingMode_t::CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING,
        }
    }
}

fn attempt(outcome: std::result::Result<(), CudnnError>) -> Result<Attempt> {
    match outcome {
        Ok(()) => Ok(Attempt::Done),
        // Refusals have their own range of codes: 3000 to 3999 (9 before cuDNN 9).
        Err(CudnnError(status)) if matches!(status as u32, 9 | 3000..=3999) => Ok(Attempt::Unsupported),
        Err(CudnnError(status)) if matches!(status as u32, 2 | 4003 | 4004) => Ok(Attempt::NoRoom),
        Err(e) => Err(Error::wrap(e)),
    }
}

/// The plan of a shape, made if there is none.
fn plan<'a>(plans: &'a mut HashMap<Key, ConvPlan>, shape: &ConvShape, dtype: DType) -> Result<&'a mut ConvPlan> {
    let key = key(shape, dtype, precision());
    match plans.entry(key) {
        Entry::Occupied(plan) => Ok(plan.into_mut()),
        Entry::Vacant(place) => Ok(place.insert(ConvPlan::new(shape, dtype, key.2)?)),
    }
}

/// Calls `run` with offers and their workspace until one runs (see [`first_that_runs`]).
fn run_first<A: Copy>(
    offers: &mut Vec<Offer<A, Math>>,
    (workspace, stream): (&mut Workspace, &Arc<CudaStream>),
    conv: sys::cudnnConvolutionDescriptor_t,
    run: impl Fn(&Offer<A, Math>, *mut c_void) -> std::result::Result<(), CudnnError>,
) -> std::result::Result<bool, Option<Error>> {
    first_that_runs(offers, |o| {
        let Some(space) = workspace.take(stream, o.workspace)? else { return Ok(Attempt::NoRoom) };
        // SAFETY: `conv` is the descriptor of a live plan.
        let set = unsafe { result::set_convolution_math_type(conv, o.math) };
        attempt(set.and_then(|()| run(o, space)))
    })
}

fn none_runs(op: &str, shape: &ConvShape) -> impl Fn(Option<Error>) -> Error {
    let text = format!("{op}: {COMPUTES_NO} {shape:?}");
    move |e| e.unwrap_or_else(|| Error::Msg(text.clone()).bt())
}

fn ran(op: &str, ran: bool) -> Result<()> {
    if ran { Ok(()) } else { bail!("{op}: out of memory for a workspace") }
}

impl Engine {
    fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let handle = result::create_handle().map_err(Error::wrap)?;
        let handle = Owned(handle, sys::cudnnDestroy as unsafe fn(_) -> _);
        // SAFETY: handle and stream live as long as the engine.
        dnn(unsafe { result::set_stream(handle.0, stream.cu_stream().cast()) })?;
        Ok(Self {
            device: device.clone(),
            stream,
            handle,
            plans: HashMap::new(),
            workspace: Workspace::default(),
            relu: relu(sys::cudnnNanPropagation_t::CUDNN_NOT_PROPAGATE_NAN)?,
            relu_alone: relu(sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN)?,
        })
    }

    /// Uninitialised memory for a result.
    fn room(&self, dtype: DType, shape: impl Into<Shape>) -> Result<(CudaStorage, *mut c_void)> {
        // SAFETY: every caller has all of it written.
        let storage = unsafe { self.device.alloc_uninit(&shape.into(), dtype) }?;
        let address = address(&storage, &self.stream)? as *mut c_void;
        Ok((storage, address))
    }

    /// The convolution of `[N, H, W, I]` with `[O, KH, KW, I]`; with `bias` `[O]`, `relu(conv + bias)`.
    pub fn convolve(
        &mut self,
        shape: &ConvShape,
        x: Operand<'_>,
        w: Operand<'_>,
        bias: Option<Operand<'_>>,
    ) -> Result<CudaStorage> {
        let op = "conv";
        let dtype = x.storage.dtype();
        let [oh, ow] = shape.output;
        let (out, y) = self.room(dtype, (shape.batch, oh, ow, shape.cout))?;
        let (x, w) = (x.address(op, &self.stream)?, w.address(op, &self.stream)?);
        let bias = bias.map(|b| b.address(op, &self.stream)).transpose()?;
        let (handle, relu, relu_alone, exact) = (self.handle.0, self.relu.0, self.relu_alone.0, exact(dtype));
        let Self { plans, workspace, stream, .. } = self;
        let plan = plan(plans, shape, dtype)?;
        let (dx, dw, dc, dy, db) = (plan.x.0, plan.w.0, plan.conv.0, plan.y.0, plan.bias.0);
        let [alone, fused] = match &mut plan.forward {
            Some(offers) => offers,
            none => {
                // SAFETY: the engine's handle and the plan's descriptors are valid.
                let all = unsafe { forward_offers(handle, dx, dw, dc, dy) }?;
                let list = eligible(&all, WORKSPACE, exact);
                none.insert([list.clone(), list])
            }
        };
        if let Some(bias) = bias {
            let fused = run_first(fused, (workspace, stream), dc, |o, space| {
                // SAFETY: descriptors have the shapes that `ConvShape` checked, addresses are those of live memory.
                unsafe {
                    result::convolution_bias_activation_forward(
                        handle,
                        factor(&ONE),
                        dx,
                        x,
                        dw,
                        w,
                        dc,
                        o.algorithm,
                        space,
                        o.workspace,
                        factor(&ZERO),
                        dy,
                        y,
                        db,
                        bias,
                        relu,
                        dy,
                        y,
                    )
                }
            });
            match fused {
                Ok(done) => {
                    ran(op, done)?;
                    return Ok(out);
                }
                Err(Some(e)) => return Err(e),
                Err(None) => {} // no fused algorithm: in three operations
            }
        }
        let done = run_first(alone, (workspace, stream), dc, |o, space| {
            // SAFETY: as above.
            unsafe {
                result::convolution_forward(
                    handle,
                    factor(&ONE),
                    dx,
                    x,
                    dw,
                    w,
                    dc,
                    o.algorithm,
                    space,
                    o.workspace,
                    factor(&ZERO),
                    dy,
                    y,
                )
            }
        });
        ran(op, done.map_err(none_runs(op, shape))?)?;
        if let Some(bias) = bias {
            // SAFETY: as above; both may write in place.
            unsafe {
                dnn(sys::cudnnAddTensor(handle, factor(&ONE), db, bias, factor(&ONE), dy, y).result())?;
                dnn(result::activation_forward(handle, relu_alone, factor(&ONE), dy, y, factor(&ZERO), dy, y))?;
            }
        }
        Ok(out)
    }

    /// The gradient of a convolution's input, from that of its output.
    pub fn data_gradient(&mut self, shape: &ConvShape, w: Operand<'_>, dy: Operand<'_>) -> Result<CudaStorage> {
        let op = "conv-input-gradient";
        let dtype = dy.storage.dtype();
        let [h, wide] = shape.input;
        let (out, dx) = self.room(dtype, (shape.batch, h, wide, shape.cin))?;
        let (w, dy) = (w.address(op, &self.stream)?, dy.address(op, &self.stream)?);
        let (handle, exact) = (self.handle.0, exact(dtype));
        let Self { plans, workspace, stream, .. } = self;
        let plan = plan(plans, shape, dtype)?;
        let (x_of, w_of, conv, y_of) = (plan.x.0, plan.w.0, plan.conv.0, plan.y.0);
        let offers = match &mut plan.data {
            Some(offers) => offers,
            none => {
                // SAFETY: the engine's handle and the plan's descriptors are valid.
                let all = unsafe { data_offers(handle, w_of, y_of, conv, x_of) }?;
                none.insert(eligible(&all, WORKSPACE, exact))
            }
        };
        let done = run_first(offers, (workspace, stream), conv, |o, space| {
            // SAFETY: descriptors have the shapes that `ConvShape` checked, addresses are those of live memory.
            unsafe {
                result::convolution_backward_data(
                    handle,
                    factor(&ONE),
                    w_of,
                    w,
                    y_of,
                    dy,
                    conv,
                    o.algorithm,
                    space,
                    o.workspace,
                    factor(&ZERO),
                    x_of,
                    dx,
                )
            }
        });
        ran(op, done.map_err(none_runs(op, shape))?)?;
        Ok(out)
    }

    /// The gradient of a convolution's weights, from its input and the gradient of its output.
    pub fn filter_gradient(&mut self, shape: &ConvShape, x: Operand<'_>, dy: Operand<'_>) -> Result<CudaStorage> {
        let op = "conv-weight-gradient";
        let dtype = dy.storage.dtype();
        let [kh, kw] = shape.window.kernel;
        let (out, dw) = self.room(dtype, (shape.cout, kh, kw, shape.cin))?;
        let (x, dy) = (x.address(op, &self.stream)?, dy.address(op, &self.stream)?);
        let (handle, exact) = (self.handle.0, exact(dtype));
        let Self { plans, workspace, stream, .. } = self;
        let plan = plan(plans, shape, dtype)?;
        let (x_of, w_of, conv, y_of) = (plan.x.0, plan.w.0, plan.conv.0, plan.y.0);
        let offers = match &mut plan.filter {
            Some(offers) => offers,
            none => {
                // SAFETY: the engine's handle and the plan's descriptors are valid.
                let all = unsafe { filter_offers(handle, x_of, y_of, conv, w_of) }?;
                none.insert(eligible(&all, WORKSPACE, exact))
            }
        };
        let done = run_first(offers, (workspace, stream), conv, |o, space| {
            // SAFETY: descriptors have the shapes that `ConvShape` checked, addresses are those of live memory.
            unsafe {
                result::convolution_backward_filter(
                    handle,
                    factor(&ONE),
                    x_of,
                    x,
                    y_of,
                    dy,
                    conv,
                    o.algorithm,
                    space,
                    o.workspace,
                    factor(&ZERO),
                    w_of,
                    dw,
                )
            }
        });
        ran(op, done.map_err(none_runs(op, shape))?)?;
        Ok(out)
    }

    /// The gradient of a ReLU's input, from its output and the output's gradient, both of `dims`.
    pub fn relu_gradient(&mut self, dims: [usize; 4], y: Operand<'_>, dy: Operand<'_>) -> Result<CudaStorage> {
        let dtype = dy.storage.dtype();
        let of = tensor(dtype, dims)?;
        let (out, dx) = self.room(dtype, dims.as_slice())?;
        let (y, dy) = (y.address("relu-gradient", &self.stream)?, dy.address("relu-gradient", &self.stream)?);
        // SAFETY: all four are of these sizes. Output and input of a ReLU are positive at the same places.
        dnn(unsafe {
            sys::cudnnActivationBackward(
                self.handle.0,
                self.relu_alone.0,
                factor(&ONE),
                of.0,
                y,
                of.0,
                dy,
                of.0,
                y,
                factor(&ZERO),
                of.0,
                dx,
            )
        }
        .result())?;
        Ok(out)
    }

    /// The sum of each channel over all pixels: `[C]`.
    pub fn channel_sums(&mut self, dims: [usize; 4], dy: Operand<'_>) -> Result<CudaStorage> {
        let dtype = dy.storage.dtype();
        let (of, sums) = (tensor(dtype, dims)?, tensor(dtype, [1, 1, 1, dims[3]])?);
        let (out, db) = self.room(dtype, dims[3])?;
        let dy = dy.address("channel-sums", &self.stream)?;
        // SAFETY: the sizes are those of the descriptors.
        dnn(unsafe {
            sys::cudnnConvolutionBackwardBias(self.handle.0, factor(&ONE), of.0, dy, factor(&ZERO), sums.0, db)
        }
        .result())?;
        Ok(out)
    }

    /// A pool of any window.
    pub fn pool(&mut self, shape: &ConvShape, mode: PoolMode, x: Operand<'_>) -> Result<CudaStorage> {
        let dtype = x.storage.dtype();
        let ([h, w], [oh, ow]) = (shape.input, shape.output);
        let (x_of, y_of) =
            (tensor(dtype, [shape.batch, h, w, shape.cin])?, tensor(dtype, [shape.batch, oh, ow, shape.cin])?);
        let pool = pooling(&shape.window, mode)?;
        let (out, y) = self.room(dtype, (shape.batch, oh, ow, shape.cin))?;
        let x = x.address("pool", &self.stream)?;
        // SAFETY: the sizes are those of the descriptors.
        dnn(unsafe {
            result::pooling_forward(self.handle.0, pool.0, factor(&ONE), x_of.0, x, factor(&ZERO), y_of.0, y)
        })?;
        Ok(out)
    }

    /// The gradient of a pool's input.
    pub fn pool_gradient(
        &mut self,
        shape: &ConvShape,
        mode: PoolMode,
        [x, y, dy]: [Operand<'_>; 3],
    ) -> Result<CudaStorage> {
        let op = "pool-gradient";
        let dtype = dy.storage.dtype();
        let ([h, w], [oh, ow]) = (shape.input, shape.output);
        let (x_of, y_of) =
            (tensor(dtype, [shape.batch, h, w, shape.cin])?, tensor(dtype, [shape.batch, oh, ow, shape.cin])?);
        let pool = pooling(&shape.window, mode)?;
        let (out, dx) = self.room(dtype, (shape.batch, h, w, shape.cin))?;
        let stream = &self.stream;
        let (x, y, dy) = (x.address(op, stream)?, y.address(op, stream)?, dy.address(op, stream)?);
        // SAFETY: the sizes are those of the descriptors.
        dnn(unsafe {
            sys::cudnnPoolingBackward(
                self.handle.0,
                pool.0,
                factor(&ONE),
                y_of.0,
                y,
                y_of.0,
                dy,
                x_of.0,
                x,
                factor(&ZERO),
                x_of.0,
                dx,
            )
        }
        .result())?;
        Ok(out)
    }

    /// Batch norm with the batch's statistics, then ReLU; and `[4, C]`: mean, unbiased variance, mean, 1 / standard
    /// deviation (the latter two for the backward pass).
    pub fn normalise_relu(
        &mut self,
        dims: [usize; 4],
        eps: f32,
        [x, gamma, beta]: [Operand<'_>; 3],
    ) -> Result<(CudaStorage, CudaStorage)> {
        let op = "batch-norm-relu";
        let c = dims[3];
        let (of, channels) = (tensor(DType::F32, dims)?, tensor(DType::F32, [1, 1, 1, c])?);
        let (out, y) = self.room(DType::F32, dims.as_slice())?;
        // With an averaging factor of 1 the running statistics are the batch's own; zeros, because 0 times NaN is NaN.
        let stats = self.device.zeros_impl(&(4, c).into(), DType::F32)?;
        let base = address(&stats, &self.stream)?;
        let row = |i: usize| (base + (4 * c * i) as u64) as *mut c_void;
        let stream = &self.stream;
        let (x, gamma, beta) = (x.address(op, stream)?, gamma.address(op, stream)?, beta.address(op, stream)?);
        // SAFETY: the sizes are those of the descriptors; ReLU may write in place.
        unsafe {
            dnn(sys::cudnnBatchNormalizationForwardTraining(
                self.handle.0,
                NORM,
                factor(&ONE),
                factor(&ZERO),
                of.0,
                x,
                of.0,
                y,
                channels.0,
                gamma,
                beta,
                1.0,
                row(0),
                row(1),
                f64::from(eps),
                row(2),
                row(3),
            )
            .result())?;
            dnn(result::activation_forward(
                self.handle.0,
                self.relu_alone.0,
                factor(&ONE),
                of.0,
                y,
                factor(&ZERO),
                of.0,
                y,
            ))?;
        }
        Ok((out, stats))
    }

    /// The gradients of a batch norm's input, scale and shift, given that of its output before the ReLU; the latter
    /// two as `[2, C]`. `stats` are those of [`Engine::normalise_relu`].
    pub fn normalise_gradient(
        &mut self,
        dims: [usize; 4],
        eps: f32,
        [x, gamma, dy, stats]: [Operand<'_>; 4],
    ) -> Result<(CudaStorage, CudaStorage)> {
        let op = "batch-norm-gradient";
        let c = dims[3];
        let (of, channels) = (tensor(DType::F32, dims)?, tensor(DType::F32, [1, 1, 1, c])?);
        let (out, dx) = self.room(DType::F32, dims.as_slice())?;
        let (parameters, first) = self.room(DType::F32, (2, c))?;
        let second = (first as u64 + 4 * c as u64) as *mut c_void;
        let stream = &self.stream;
        let (x, gamma, dy) = (x.address(op, stream)?, gamma.address(op, stream)?, dy.address(op, stream)?);
        let saved = stats.address(op, stream)? as u64;
        let row = |i: usize| (saved + (4 * c * i) as u64) as *const c_void;
        // SAFETY: the sizes are those of the descriptors.
        dnn(unsafe {
            sys::cudnnBatchNormalizationBackward(
                self.handle.0,
                NORM,
                factor(&ONE),
                factor(&ZERO),
                factor(&ONE),
                factor(&ZERO),
                of.0,
                x,
                of.0,
                dy,
                of.0,
                dx,
                channels.0,
                gamma,
                first,
                second,
                f64::from(eps),
                row(2),
                row(3),
            )
        }
        .result())?;
        Ok((out, parameters))
    }
}

/// Statistics of each channel over all pixels. The persistent variant sums integers and so is deterministic.
const NORM: sys::cudnnBatchNormMode_t = sys::cudnnBatchNormMode_t::CUDNN_BATCHNORM_SPATIAL_PERSISTENT;

/// The arithmetic that offers must have if f32 products are required, else `None`.
fn exact(dtype: DType) -> Option<Math> {
    (dtype == DType::F32 && precision() == Precision::F32).then_some(Math::CUDNN_FMA_MATH)
}

fn relu(nan: sys::cudnnNanPropagation_t) -> Result<Owned<sys::cudnnActivationDescriptor_t>> {
    let made = result::create_activation_descriptor().map_err(Error::wrap)?;
    let owned = Owned(made, sys::cudnnDestroyActivationDescriptor as unsafe fn(_) -> _);
    let mode = sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU;
    // SAFETY: the descriptor was just made.
    dnn(unsafe { result::set_activation_descriptor(owned.0, mode, nan, 0.0) })?;
    Ok(owned)
}

fn pooling(window: &Window, mode: PoolMode) -> Result<Owned<sys::cudnnPoolingDescriptor_t>> {
    let made = result::create_pooling_descriptor().map_err(Error::wrap)?;
    let owned = Owned(made, sys::cudnnDestroyPoolingDescriptor as unsafe fn(_) -> _);
    let [kernel, padding] = [window.kernel, window.padding].map(|v| v.map(|v| v as c_int));
    let strides = [int(window.stride)?; 2];
    let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
    // SAFETY: the descriptor was just made; two sizes of each.
    dnn(unsafe { result::set_pooling_descriptor(owned.0, mode.mode(), nan, 2, &kernel, &padding, &strides) })?;
    Ok(owned)
}
