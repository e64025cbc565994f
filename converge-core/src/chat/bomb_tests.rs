//! Templates that mean harm.

use super::*;
use crate::CoreError;

fn error(template: &str) -> ChatError {
    let rendered = ChatTemplate::from_source(template, "", "")
        .and_then(|t| t.render(&[], &RenderOptions::default()));
    match rendered {
        Err(CoreError::Chat(e)) => e,
        other => panic!("{template}: expected a chat error, got {other:?}"),
    }
}

/// A bomb must end in a typed error, soon, and on a small stack.
fn bomb(template: &str) -> ChatError {
    let start = std::time::Instant::now();
    let error = error(template);
    let took = start.elapsed();
    let head: String = template.chars().take(80).collect();
    assert!(took.as_secs() < 10, "{head}: {took:?}");
    error
}

#[test]
fn bombs_of_work_and_memory_run_out_of_fuel() {
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}\
         {% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}\
         {% set n.s = n.s.replace('a', 'aa') %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}\
         {% set n.s = n.s.join('aaa') %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}\
         {% set n.s = '{0}{0}'.format(n.s) %}{% endfor %}{{ n.s }}",
        "{% set s = 'a' * 1000000 %}{{ s.replace('a', s) }}",
        "{{ ('a\n' * 1000) | indent(1000000) }}",
        "{{ 'a'.zfill(1000000000) ~ 'a'.ljust(1000000000) }}",
        "{{ '%1000000000s' | format('a') }}",
    ] {
        assert!(
            matches!(bomb(template), ChatError::OutOfFuel { .. }),
            "{template}"
        );
    }
    for template in [
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ [1] * 1000000000 }}",
        "{% set l = ['a' * 1000] %}{% set x = l * 10000000 ~ '' %}",
        "{% set l = ['a' * 1000] %}{% set x = 10000000 * l ~ '' %}",
        "{% set l = ['a' * 1000000] %}{{ [l, l, l, l, l] ~ '' }}",
        "{% set n = namespace(l=[1, 2, 3]) %}{% for i in range(50000) %}\
         {% set n.l = n.l[:2] + [n.l] %}{% endfor %}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ 10 ** 1000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% call g() %}{{ f() }}{% endcall %}{% endmacro %}\
         {% macro g() %}{{ caller() }}{% endmacro %}{{ f() }}",
        "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% include 'chat_template' %}",
        "{% extends 'chat_template' %}",
    ] {
        assert!(
            matches!(bomb(template), ChatError::Render { .. }),
            "{template}"
        );
    }
}

#[test]
fn lists_grow_and_shrink_within_the_budget() {
    for (template, expected) in [
        (
            "{% set n = namespace(l=[]) %}{% for i in range(1000) %}\
             {% set n.l = n.l + [{'i': i}] %}{% endfor %}{{ n.l | length }}",
            "1000",
        ),
        (
            "{% set n = namespace(l=range(500)) %}{% for i in range(200) %}\
             {% set n.l = n.l[1:] %}{% endfor %}{{ n.l | length }}",
            "300",
        ),
        ("{% set a, b = 1, (2, 3) %}{{ a ~ b[1] }}", "13"),
        ("{% set a = 2 %}{{ 3 * a ~ (a * 3 - 1 * a) }}", "64"),
        (
            "{% set a = 2 %}{{ a * 3 if a * a == 4 and 2 * a in [4] else 0 }}",
            "6",
        ),
        ("{{ {'a': [1, {'b': (2,)}]}['a'][1].b[0] }}", "2"),
        ("{{ 'x' if (none) is none }}{{ (a) is defined }}", "xFalse"),
        (
            "{% for (k, v) in {'a': 1}.items() %}{{ k ~ v * 2 }}{% endfor %}",
            "a2",
        ),
        (
            "{% macro f(a, b=[1]) %}{{ a ~ b }}{% endmacro %}{{ f(*[1], b=(2)) }}",
            "12",
        ),
        (
            "{% raw %}{{ [1] * {% if %}{% endraw %}{# {% [ #}{{ '{% [' }}",
            "{{ [1] * {% if %}{% [",
        ),
        (
            "{{ [1, 2, 3][::-1] | join(',') }}{{ 'a' * 2 ** 2 }}",
            "3,2,1aaaa",
        ),
    ] {
        let rendered = ChatTemplate::from_source(template, "", "")
            .and_then(|t| t.render(&[], &RenderOptions::default()));
        match rendered {
            Ok(text) => assert_eq!(text, expected, "{template}"),
            Err(e) => panic!("{template}: {e}"),
        }
    }
}

#[test]
fn output_is_limited() {
    let limits = ChatLimits {
        output_bytes: 1000,
        ..ChatLimits::default()
    };
    let template = ChatTemplate::from_source_with("{{ 'a' * 1001 }}", "", "", &limits).unwrap();
    assert!(matches!(
        template.render(&[], &RenderOptions::default()),
        Err(CoreError::Chat(ChatError::OutputTooLarge { limit: 1000 }))
    ));
    let limits = ChatLimits {
        source_bytes: 10,
        ..ChatLimits::default()
    };
    assert!(matches!(
        ChatTemplate::from_source_with("{{ 'a' * 1001 }}", "", "", &limits),
        Err(CoreError::Chat(ChatError::SourceTooLarge {
            bytes: 16,
            limit: 10
        }))
    ));
}

#[test]
fn long_chains_are_refused_or_rendered() {
    let n = 20_000;
    for template in [
        format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n)),
        format!("{{{{ 1{} }}}}", "+1".repeat(n)),
        format!("{{{{ 1{} }}}}", "~1".repeat(n)),
        format!("{{{{ 1{} }}}}", "**1".repeat(n)),
        format!("{{{{ a{} }}}}", "[1]".repeat(n)),
        format!("{{{{ a{} }}}}", ".a".repeat(n)),
        format!("{{{{ 'a'{} }}}}", "|upper".repeat(n)),
        format!("{{{{ {} 1 }}}}", "not ".repeat(n)),
        format!("{{{{ {} 1 }}}}", "-".repeat(n)),
        format!("{{{{ 1 {} }}}}", "if 1 else 1 ".repeat(n)),
        format!("{{{{ 1{} }}}}", " and 1".repeat(n)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(n)),
        format!("{}{}", "{% if 1 %}".repeat(n), "{% endif %}".repeat(n)),
    ] {
        let limits = ChatLimits {
            source_bytes: 1 << 20,
            ..ChatLimits::default()
        };
        // On a thread with a small stack, as callers may have.
        let result = std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || ChatTemplate::from_source_with(&template, "", "", &limits).err())
            .unwrap()
            .join()
            .unwrap();
        assert!(
            matches!(
                result,
                Some(CoreError::Chat(
                    ChatError::SourceTooComplex { .. } | ChatError::TemplateSyntax { .. }
                ))
            ),
            "{result:?}"
        );
    }
}

#[test]
fn values_shared_or_nested_without_end_are_refused() {
    let double = "{% set n = namespace(l=[1], m=[1]) %}{% for i in range(60) %}\
                  {% set n.l = [n.l, n.l] %}{% set n.m = [n.m, n.m] %}{% endfor %}";
    let deep = "{% set n = namespace(l=[1], m=[1]) %}{% for i in range(50000) %}\
                {% set n.l = [n.l] %}{% set n.m = {'a': n.m} %}{% endfor %}";
    let flat = format!("{{% set l = [1] %}}{}", "{% set l = [l, l] %}".repeat(60));
    let pairs = format!("{{% set l = 1 %}}{}", "{% set l = l, l %}".repeat(60));
    let calls = "{% macro f(l, d) %}{% if d %}{{ f([l, l], d - 1) }}{% else %}{{ l }}\
                 {% endif %}{% endmacro %}{{ f([1], 30) }}";
    let itself = "{% set n = namespace() %}{% set n.a = n %}";
    for (build, uses) in [
        (
            double,
            &[
                "{{ n.l }}",
                "{{ n.l ~ '' }}",
                "{{ n.l == n.m }}",
                "{{ n.l | tojson }}",
            ][..],
        ),
        (deep, &["", "{{ n.l }}", "{{ n.l == n.m }}"]),
        (&flat, &["{{ l }}", "{{ l | string }}", "{{ {l: 1} }}"]),
        (&pairs, &["{{ l }}"]),
        (calls, &[""]),
        (itself, &["{{ n }}", "{{ n ~ '' }}"]),
    ] {
        for using in uses {
            let template = format!("{build}{using}");
            assert!(
                matches!(
                    bomb(&template),
                    ChatError::Render { .. } | ChatError::OutOfFuel { .. }
                ),
                "{template}"
            );
        }
    }
}
