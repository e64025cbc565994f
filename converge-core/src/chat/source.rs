//! A template's source before it is compiled: limits, and tags that only training needs.

use super::{ChatError, ChatLimits};

/// Checks the limits and takes out what the engine does not know.
pub(super) fn prepare(template: &str, limits: &ChatLimits) -> Result<String, ChatError> {
    if template.len() > limits.source_bytes {
        return Err(ChatError::SourceTooLarge {
            bytes: template.len(),
            limit: limits.source_bytes,
        });
    }
    Ok(generation(template))
}

/// `{% generation %}` marks what the model wrote, for training; it renders its body in a scope of
/// its own, which is what `{% with %}` does.
fn generation(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let name = tag[2..].trim_start_matches(['-', '+']).trim_start();
        let replaced = [("generation", "with"), ("endgeneration", "endwith")]
            .into_iter()
            .find(|(from, _)| {
                name.strip_prefix(from).is_some_and(|after| {
                    let after = after.trim_start();
                    after.trim_start_matches(['-', '+']).starts_with("%}")
                })
            });
        match replaced {
            Some((from, to)) => {
                out.push_str(&tag[..tag.len() - name.len()]);
                out.push_str(to);
                rest = &name[from.len()..];
            }
            None => {
                out.push_str("{%");
                rest = &tag[2..];
            }
        }
    }
    out.push_str(rest);
    out
}
