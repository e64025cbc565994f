//! Mixtures of experts: three-dimensional tensors of all experts of a layer.

use super::{
    super::spec::{Experts, FeedForward, Gated, Projection, SharedExpert},
    Sizes, Source, parameter,
};
use crate::{CoreError, Result};

impl Source<'_> {
    /// The experts of layer `i`, of `inner` each. `normalised` says whether the chosen ones'
    /// probabilities are divided by their sum, where the file does not.
    pub(super) fn experts(
        &self,
        i: usize,
        sizes: &Sizes,
        inner: usize,
        normalised: bool,
    ) -> Result<Experts> {
        let count = self.size("expert_count")?;
        let used = self.experts_used(count)?;
        self.only("expert_gating_func", &[1], "1, softmax")?;
        if let Some(scale) = self
            .scale("expert_weights_scale")?
            .filter(|&scale| scale != 1.0)
        {
            return Err(CoreError::UnsupportedFeature {
                key: self.key("expert_weights_scale"),
                found: scale.to_string(),
                supported: "1",
            });
        }
        let width = sizes.width;
        let router = self.matrix(&format!("blk.{i}.ffn_gate_inp.weight"), count, width)?;
        let gate = self.stacked(i, "gate", [count, inner, width])?;
        let up = self.stacked(i, "up", [count, inner, width])?;
        let down = self.stacked(i, "down", [count, width, inner])?;
        let experts = gate.zip(up).zip(down);
        let stated = self
            .gguf
            .metadata()
            .find(&self.key("expert_weights_norm"))?;
        Ok(Experts {
            router,
            experts: experts
                .map(|((gate, up), down)| Gated { gate, up, down })
                .collect(),
            used,
            normalised: stated.unwrap_or(normalised),
            shared: None,
        })
    }

    /// [`experts`](Self::experts) as the only feed-forward network.
    pub(super) fn only_experts(
        &self,
        i: usize,
        sizes: &Sizes,
        inner: usize,
    ) -> Result<FeedForward> {
        let experts = self.experts(i, sizes, inner, true)?;
        Ok(FeedForward::Experts(experts))
    }

    /// The expert of layer `i` that every token goes through.
    pub(super) fn shared_expert(
        &self,
        i: usize,
        sizes: &Sizes,
        inner: usize,
    ) -> Result<SharedExpert> {
        let name = format!("blk.{i}.ffn_gate_inp_shexp.weight");
        // One row: converters drop the dimension.
        let weight = match self.gguf.tensor(&name)?.shape.len() {
            1 => self.vector(&name, sizes.width)?,
            _ => self.shaped(&name, &[1, sizes.width])?,
        };
        Ok(SharedExpert {
            network: self.gated(i, "_shexp", inner, sizes.width)?,
            gate: Projection {
                weight,
                first_row: 0,
                bias: None,
                outputs: 1,
                inputs: sizes.width,
            },
        })
    }

    /// Experts that a token goes through, of `count`.
    fn experts_used(&self, count: usize) -> Result<usize> {
        let used = self.size("expert_used_count")?;
        if used > count {
            let key = self.key("expert_used_count");
            let expected = format!("at most the {count} experts");
            return Err(parameter(key, used, expected));
        }
        Ok(used)
    }

    /// The matrices `outputs × inputs` of all experts, in a tensor `[count, outputs, inputs]`.
    fn stacked(
        &self,
        i: usize,
        part: &str,
        shape: [usize; 3],
    ) -> Result<impl Iterator<Item = Projection>> {
        let weight = self.shaped(&format!("blk.{i}.ffn_{part}_exps.weight"), &shape)?;
        let [count, outputs, inputs] = shape;
        Ok((0..count).map(move |expert| Projection {
            weight: weight.clone(),
            first_row: expert * outputs,
            bias: None,
            outputs,
            inputs,
        }))
    }

    /// Refuses any other value of an optional key.
    fn only(&self, suffix: &str, values: &[usize], supported: &'static str) -> Result<()> {
        match self.optional_size(suffix)? {
            Some(found) if !values.contains(&found) => Err(CoreError::UnsupportedFeature {
                key: self.key(suffix),
                found: found.to_string(),
                supported,
            }),
            _ => Ok(()),
        }
    }
}
