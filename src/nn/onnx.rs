//! ONNX files: a model as other programs compute it, from an image's pixels to its scores.
//!
//! The messages are those of [onnx.proto3](https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3), as far as they are
//! written here; operators are those of opset 17.

mod proto;

use super::graph::{Node, Operation};
use super::head::NORM_EPSILON;
use super::kernel::Window;
use crate::digest::Digest;
use candle_core::{DType, Result, Tensor};
use prost::Message;
use proto::{Attribute, Element, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfo};
use std::collections::{BTreeMap, HashMap};

/// The version of the operators.
const OPSET: i64 = 17;
/// The version of the format that belongs to it.
const IR_VERSION: i64 = 8;

/// What a file is made of.
pub struct Description<'a> {
    /// Its name, and facts for people and programs, such as the names of the classes.
    pub name: &'a str,
    /// See [`Description::name`].
    pub metadata: &'a BTreeMap<String, String>,
    /// The program that writes it, and its version.
    pub producer: (&'a str, &'a str),
    /// The networks with the models whose mean score counts.
    pub members: &'a [Member<'a>],
    /// Side of the square image, and its channels: 1 for grey, or 3.
    pub image: (usize, usize),
    /// Number of classes.
    pub classes: usize,
}

/// A network, and models of it.
pub struct Member<'a> {
    /// From the scaled image to the pooled features: [`super::graphs::graph`].
    pub nodes: Vec<Node>,
    /// The tensors of each model: of the network, and under `top.` of the head.
    pub models: &'a [BTreeMap<String, Tensor>],
    /// Pixel values are divided by this; then a mean is subtracted, then divided by a deviation, by channel.
    pub scaling: (f32, [f32; 3], [f32; 3]),
    /// The matrix `[to, side]`, row-major, that reduces rows and columns of the image to `to` values; `None`: the network sees
    /// the image as it is.
    pub reduction: Option<Vec<f32>>,
}

/// The most bytes of a message in protocol buffers.
const LARGEST: usize = i32::MAX as usize;

/// The bytes of a file with one input, `pixels`: u8 `[N, channels, side, side]`, and one output, `scores`: f32 `[N, classes]`,
/// the softmax of each model's logits, averaged over the models. What several models have in common, such as a frozen
/// network, is in it once and computed once.
///
/// # Errors
/// If a tensor is missing or cannot be read, or the file would be larger than 2 GiB, which the format does not allow.
pub fn bytes(description: &Description<'_>) -> Result<Vec<u8>> {
    let mut writer = Writer::default();
    let total: usize = description.members.iter().map(|member| member.models.len()).sum();
    let mut scores = Vec::new();
    for member in description.members {
        for tensors in member.models {
            let prefix = if total == 1 { String::new() } else { format!("model{}/", scores.len() + 1) };
            let x = writer.scaled(&prefix, description.image.1, &member.scaling);
            let x = match &member.reduction {
                Some(matrix) => writer.reduced(&prefix, description.image.0, matrix, &x),
                None => x,
            };
            scores.push(writer.model(&prefix, &member.nodes, tensors, &x)?);
        }
    }
    match scores.as_slice() {
        [only] => writer.named("scores", "Identity", std::slice::from_ref(only), Vec::new()),
        _ => writer.named("scores", "Mean", &scores, Vec::new()),
    }
    let (side, channels) = description.image;
    let pixels = [None, Some(channels), Some(side), Some(side)];
    let graph = GraphProto {
        node: writer.nodes,
        name: description.name.to_owned(),
        initializer: writer.initializers,
        input: vec![ValueInfo::new("pixels", Element::Uint8, &pixels)],
        output: vec![ValueInfo::new("scores", Element::Float, &[None, Some(description.classes)])],
    };
    let (producer, version) = description.producer;
    let model = ModelProto::new((IR_VERSION, OPSET), (producer, version), graph, description.metadata);
    let size = model.encoded_len();
    if size > LARGEST {
        candle_core::bail!(
            "an ONNX file of {} would be larger than the format allows: 2 GiB",
            crate::wording::bytes(size as u64)
        );
    }
    Ok(model.encode_to_vec())
}

/// Nodes and constants, in the order in which they are computed.
#[derive(Default)]
struct Writer {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// The output of every node by what it computes, and the name of every constant by its content.
    computed: HashMap<Digest, String>,
}

impl Writer {
    fn named(&mut self, output: &str, operator: &str, inputs: &[String], attributes: Vec<Attribute>) {
        self.nodes.push(NodeProto {
            input: inputs.to_vec(),
            output: vec![output.to_owned()],
            name: format!("{operator}_{}", self.nodes.len()),
            op_type: operator.to_owned(),
            attribute: attributes,
        });
    }

    /// Adds a node, unless there is one that computes the same; returns the name of its output.
    fn add(&mut self, operator: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let attributes_of: Vec<u8> = attributes.iter().flat_map(Attribute::encode_length_delimited_to_vec).collect();
        let taken = inputs.join(",");
        let same = Digest::of_parts([(operator, taken.as_bytes()), ("", &attributes_of)]);
        if let Some(output) = self.computed.get(&same) {
            return output.clone();
        }
        let output = format!("value{}", self.nodes.len());
        let inputs: Vec<String> = inputs.iter().map(|&name| name.to_owned()).collect();
        self.named(&output, operator, &inputs, attributes);
        self.computed.insert(same, output.clone());
        output
    }

    /// Adds a constant, unless there is an equal one of this name, maybe of another model; returns its name in the file.
    fn constant(&mut self, prefix: &str, name: &str, dims: &[usize], values: &[f32]) -> String {
        let tensor = TensorProto::floats(format!("{prefix}{name}"), dims, values);
        let shape: Vec<u8> = tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        let same = Digest::of_parts([(name, shape.as_slice()), ("", &tensor.raw_data)]);
        if let Some(known) = self.computed.get(&same) {
            return known.clone();
        }
        let name = tensor.name.clone();
        self.initializers.push(tensor);
        self.computed.insert(same, name.clone());
        name
    }

    /// Adds a tensor of the model under its own name.
    fn tensor(&mut self, prefix: &str, tensors: &BTreeMap<String, Tensor>, name: &str) -> Result<String> {
        self.shaped(prefix, tensors, name, |dims| dims.to_vec())
    }

    /// The same with other dimensions.
    fn shaped(
        &mut self,
        prefix: &str,
        tensors: &BTreeMap<String, Tensor>,
        name: &str,
        dims: impl Fn(&[usize]) -> Vec<usize>,
    ) -> Result<String> {
        let Some(tensor) = tensors.get(name) else { candle_core::bail!("the model has no tensor `{name}`") };
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(self.constant(prefix, name, &dims(tensor.dims()), &values))
    }

    /// The scaled image, `[N, 3, side, side]`, of one with so many channels.
    fn scaled(&mut self, prefix: &str, channels: usize, scaling: &(f32, [f32; 3], [f32; 3])) -> String {
        let (divisor, mean, deviation) = scaling;
        let float = vec![Attribute::int("to", Element::Float as i64)];
        let mut x = self.add("Cast", &["pixels"], float);
        if channels == 1 {
            x = self.add("Concat", &[&x, &x, &x], vec![Attribute::int("axis", 1)]);
        }
        let divisor = self.constant(prefix, "scaling.divisor", &[], &[*divisor]);
        let mean = self.constant(prefix, "scaling.mean", &[1, 3, 1, 1], mean);
        let deviation = self.constant(prefix, "scaling.deviation", &[1, 3, 1, 1], deviation);
        let x = self.add("Div", &[&x, &divisor], Vec::new());
        let x = self.add("Sub", &[&x, &mean], Vec::new());
        self.add("Div", &[&x, &deviation], Vec::new())
    }

    /// The scaled image of `side` pixels with rows and columns reduced by a matrix.
    fn reduced(&mut self, prefix: &str, side: usize, matrix: &[f32], image: &str) -> String {
        let to = matrix.len() / side;
        let across: Vec<f32> = (0..side * to).map(|at| matrix[at % to * side + at / to]).collect();
        let rows = self.constant(prefix, "reduction.rows", &[to, side], matrix);
        let columns = self.constant(prefix, "reduction.columns", &[side, to], &across);
        let x = self.add("MatMul", &[&rows, image], Vec::new());
        self.add("MatMul", &[&x, &columns], Vec::new())
    }

    /// Scores of the scaled image by one model.
    fn model(
        &mut self,
        prefix: &str,
        nodes: &[Node],
        tensors: &BTreeMap<String, Tensor>,
        image: &str,
    ) -> Result<String> {
        let mut values = vec![image.to_owned()];
        for node in nodes {
            let inputs: Vec<&str> = node.inputs.iter().map(|&i| values[i].as_str()).collect();
            let output = self.node(prefix, &node.operation, tensors, &inputs)?;
            values.push(output);
        }
        let features = values.pop().unwrap_or_default();
        let x = self.add("Flatten", &[&features], vec![Attribute::int("axis", 1)]);
        let norm = Operation::BatchNorm { name: "top.norm".to_owned(), epsilon: NORM_EPSILON };
        let mut x = self.node(prefix, &norm, tensors, &[&x])?;
        if tensors.contains_key("top.hidden.weight") {
            x = self.dense(prefix, tensors, "top.hidden", &x)?;
            x = self.add("Relu", &[&x], Vec::new());
        }
        let logits = self.dense(prefix, tensors, "top.out", &x)?;
        Ok(self.add("Softmax", &[&logits], vec![Attribute::int("axis", 1)]))
    }

    fn dense(&mut self, prefix: &str, tensors: &BTreeMap<String, Tensor>, name: &str, x: &str) -> Result<String> {
        let weight = self.tensor(prefix, tensors, &format!("{name}.weight"))?;
        let bias = self.tensor(prefix, tensors, &format!("{name}.bias"))?;
        Ok(self.add("Gemm", &[x, &weight, &bias], vec![Attribute::int("transB", 1)]))
    }

    fn node(
        &mut self,
        prefix: &str,
        operation: &Operation,
        tensors: &BTreeMap<String, Tensor>,
        inputs: &[&str],
    ) -> Result<String> {
        let x = inputs.first().copied().unwrap_or_default();
        Ok(match operation {
            Operation::Conv { name, bias, window, groups } => {
                let whole = |dims: &[usize]| if let [a, b] = dims { vec![*a, *b, 1, 1] } else { dims.to_vec() };
                let weight = self.shaped(prefix, tensors, &format!("{name}.weight"), whole)?;
                let mut inputs = vec![x.to_owned(), weight];
                if *bias {
                    inputs.push(self.tensor(prefix, tensors, &format!("{name}.bias"))?);
                }
                let mut attributes = sliding(window);
                attributes.push(Attribute::int("group", *groups as i64));
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                self.add("Conv", &inputs, attributes)
            }
            Operation::BatchNorm { name, epsilon } => {
                let [weight, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
                    .map(|part| self.tensor(prefix, tensors, &format!("{name}.{part}")));
                let inputs = [x, &weight?, &bias?, &mean?, &variance?];
                self.add("BatchNormalization", &inputs, vec![Attribute::float("epsilon", *epsilon as f32)])
            }
            Operation::LayerNorm { name, epsilon } => {
                let [weight, bias] =
                    ["weight", "bias"].map(|part| self.tensor(prefix, tensors, &format!("{name}.{part}")));
                let last = self.add("Transpose", &[x], vec![Attribute::ints("perm", &[0, 2, 3, 1])]);
                let attributes = vec![Attribute::int("axis", -1), Attribute::float("epsilon", *epsilon as f32)];
                let y = self.add("LayerNormalization", &[&last, &weight?, &bias?], attributes);
                self.add("Transpose", &[&y], vec![Attribute::ints("perm", &[0, 3, 1, 2])])
            }
            Operation::Scale { name } => {
                let factors = self.shaped(prefix, tensors, name, |dims| [&[1][..], dims, &[1, 1]].concat())?;
                self.add("Mul", &[x, &factors], Vec::new())
            }
            Operation::Relu => self.add("Relu", &[x], Vec::new()),
            Operation::Gelu => {
                let root = self.constant("", "gelu.root", &[], &[std::f32::consts::SQRT_2]);
                let one = self.constant("", "gelu.one", &[], &[1.0]);
                let half = self.constant("", "gelu.half", &[], &[0.5]);
                let z = self.add("Div", &[x, &root], Vec::new());
                let z = self.add("Erf", &[&z], Vec::new());
                let z = self.add("Add", &[&z, &one], Vec::new());
                let z = self.add("Mul", &[&z, &half], Vec::new());
                self.add("Mul", &[x, &z], Vec::new())
            }
            Operation::MaxPool(window) => self.add("MaxPool", &[x], with_kernel(window)),
            Operation::AveragePool { window, counted } => {
                let mut attributes = with_kernel(window);
                attributes.push(Attribute::int("count_include_pad", i64::from(*counted)));
                self.add("AveragePool", &[x], attributes)
            }
            Operation::Concat => self.add("Concat", inputs, vec![Attribute::int("axis", 1)]),
            Operation::Add => self.add("Add", inputs, Vec::new()),
            Operation::GlobalAveragePool => self.add("GlobalAveragePool", &[x], Vec::new()),
        })
    }
}

fn sliding(window: &Window) -> Vec<Attribute> {
    let ([rows, columns], stride) = (window.padding.map(|n| n as i64), window.stride as i64);
    vec![Attribute::ints("pads", &[rows, columns, rows, columns]), Attribute::ints("strides", &[stride, stride])]
}

fn with_kernel(window: &Window) -> Vec<Attribute> {
    let mut attributes = sliding(window);
    attributes.push(Attribute::ints("kernel_shape", &window.kernel.map(|n| n as i64)));
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::graphs::graph;
    use crate::nn::inception_v3;
    use crate::spec::{BackboneKind, PoolPadding};
    use candle_core::Device;
    use std::collections::BTreeSet;

    /// What onnxruntime makes of such files is checked by `benches/quality/onnx_check.py`.
    #[test]
    fn a_file_is_complete_and_in_order() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let mut tensors: BTreeMap<String, Tensor> =
            inception_v3::parameters(0.125).into_iter().map(|(name, shape)| (name, zeros(&shape))).collect();
        let nodes = graph(BackboneKind::InceptionV3, 0.125, PoolPadding::Excluded, "Mixed_5b").unwrap();
        let channels = inception_v3::stages(0.125).iter().find(|s| s.name == "Mixed_5b").unwrap().channels;
        for part in ["weight", "bias", "running_mean", "running_var"] {
            tensors.insert(format!("top.norm.{part}"), zeros(&[channels]));
        }
        tensors.insert("top.out.weight".to_owned(), zeros(&[2, channels]));
        tensors.insert("top.out.bias".to_owned(), Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap());
        // The first unit differs between the models, the last layer is the same.
        let mut other = tensors.clone();
        other.insert("top.out.bias".to_owned(), Tensor::new(&[2f32, 1.0], &Device::Cpu).unwrap());
        let metadata = [("trial".to_owned(), "7".to_owned())].into();
        let member = |models, divisor| Member {
            nodes: nodes.clone(),
            models,
            scaling: (divisor, [1.0; 3], [1.0; 3]),
            reduction: None,
        };
        let written = |members: &[Member<'_>]| {
            let (producer, image) = (("hpsearch", "0"), (75, 1));
            bytes(&Description { name: "test", metadata: &metadata, producer, members, image, classes: 2 })
        };
        let decoded = |members: &[Member<'_>]| ModelProto::decode(written(members).unwrap().as_slice()).unwrap();
        let models = [tensors, other];
        let model = decoded(&[member(&models, 127.5)]);
        let graph = model.graph.unwrap();
        let mut known: BTreeSet<String> = graph.initializer.iter().map(|tensor| tensor.name.clone()).collect();
        assert_eq!(known.len(), graph.initializer.len());
        known.extend(graph.input.iter().map(|input| input.name.clone()));
        for node in &graph.node {
            node.input.iter().for_each(|input| assert!(known.contains(input), "{} takes {input}", node.name));
            node.output.iter().for_each(|output| assert!(known.insert(output.clone()), "{output} twice"));
        }
        assert!(known.contains("scores") && known.contains("pixels"));
        let bias = graph.initializer.iter().find(|tensor| tensor.name == "model2/top.out.bias").unwrap();
        assert_eq!((bias.dims.as_slice(), bias.raw_data.as_slice()), (&[2][..], &[0, 0, 0, 64, 0, 0, 128, 63][..]));
        assert_eq!((model.metadata_props[0].key.as_str(), model.metadata_props[0].value.as_str()), ("trial", "7"));
        let averaged = graph.node.last().unwrap();
        assert_eq!((averaged.op_type.as_str(), averaged.input.len()), ("Mean", 2));

        // What models have in common is computed once, and what they do not have is not.
        let count = |members: &[Member<'_>], operator: &str| {
            let nodes = decoded(members).graph.unwrap().node;
            nodes.iter().filter(|node| node.op_type == operator).count()
        };
        let one = &models[..1];
        let convolutions = count(&[member(one, 127.5)], "Conv");
        let of = |divisor, operator| count(&[member(one, 127.5), member(&models[1..], divisor)], operator);
        assert_eq!((of(127.5, "Conv"), of(127.5, "Gemm")), (convolutions, 2));
        assert_eq!(of(255.0, "Conv"), 2 * convolutions, "of another scale, everything differs");

        // Of a reduced image, everything differs but the image.
        let reduction = Some(vec![0.1; 60 * 75]);
        let both = [member(one, 127.5), Member { reduction, ..member(&models[1..], 127.5) }];
        assert_eq!([count(&both, "Conv"), count(&both, "MatMul"), count(&both, "Cast")], [2 * convolutions, 2, 1]);
        let constants = decoded(&both[1..]).graph.unwrap().initializer;
        let dims = |name: &str| constants.iter().find(|tensor| tensor.name == name).unwrap().dims.clone();
        assert_eq!((dims("reduction.rows"), dims("reduction.columns")), (vec![60, 75], vec![75, 60]));

        let missing = [BTreeMap::new()];
        let error = written(&[member(&missing, 127.5)]).unwrap_err().to_string();
        assert!(error.contains("no tensor `Conv2d_1a_3x3.conv.weight`"), "{error}");
    }
}
