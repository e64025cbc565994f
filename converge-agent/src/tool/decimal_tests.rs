use proptest::prelude::*;

use super::*;

fn d(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[test]
fn text_reads_and_prints_without_superfluous_zeros() {
    for (text, printed) in [
        ("0", "0"),
        ("-0.00", "0"),
        ("+1200.50", "1200.5"),
        ("-.05", "-0.05"),
        ("7.", "7"),
        (
            "0.0000000000000000000000000001",
            "0.0000000000000000000000000001",
        ),
        (
            "170141183460469231731687303715884105727",
            "170141183460469231731687303715884105727",
        ),
    ] {
        assert_eq!(d(text).to_string(), printed);
    }
    for bad in [
        "",
        ".",
        "-",
        "1e5",
        "1,000",
        "1 ",
        "--1",
        "0.00000000000000000000000000001",
        "170141183460469231731687303715884105728",
        "٣",
    ] {
        assert!(bad.parse::<Decimal>().is_err(), "{bad:?}");
    }
    assert_eq!(
        format!("{:>7}|{:<6}|", d("-1.5"), d("2")),
        "   -1.5|2     |"
    );
}

#[test]
fn arithmetic_is_exact_where_it_can_be() {
    assert_eq!(d("0.1").checked_add(d("0.2")), Ok(d("0.3")));
    assert_eq!(d("1").checked_sub(d("0.9")), Ok(d("0.1")));
    assert_eq!(d("1.1").checked_mul(d("1.1")), Ok(d("1.21")));
    assert_eq!(d("1").checked_div(d("8")), Ok(d("0.125")));
    assert_eq!(
        d("1").checked_div(d("3")),
        Ok(d("0.3333333333333333333333333333"))
    );
    assert_eq!(
        d("2").checked_div(d("3")),
        Ok(d("0.6666666666666666666666666667"))
    );
    assert_eq!(
        d("-2")
            .checked_div(d("3"))
            .unwrap()
            .checked_mul(d("3"))
            .unwrap()
            .round(20),
        d("-2")
    );
    assert_eq!(
        d("1").checked_div(Decimal::ZERO),
        Err(DecimalError::DivisionByZero)
    );
    let tiny = d("0.0000000000000000000000000001");
    assert_eq!(
        d("12345678901234567890")
            .checked_div(tiny)
            .map_err(|e| e.to_string()),
        Err("the result is too large".into())
    );
    assert_eq!(
        d("1234567890").checked_div(tiny),
        Ok(d("12345678900000000000000000000000000000"))
    );
    assert_eq!(tiny.checked_mul(d("0.1")), Ok(Decimal::ZERO));
    assert_eq!(
        tiny.checked_mul(d("0.5")),
        Ok(Decimal::ZERO),
        "half to even"
    );
    assert_eq!(
        tiny.checked_mul(d("1.5")),
        tiny.checked_add(tiny),
        "half to even"
    );
    // 38 digits are exact, what goes beyond is rounded at its end.
    assert_eq!(
        d("12345678901234567890").checked_add(d("0.0123456789012345678901")),
        Ok(d("12345678901234567890.0123456789012345679"))
    );
}

#[test]
fn powers_are_whole_and_bounded() {
    assert_eq!(d("1.05").checked_pow(d("3")), Ok(d("1.157625")));
    assert_eq!(d("2").checked_pow(d("-2")), Ok(d("0.25")));
    assert_eq!(d("-2").checked_pow(d("3")), Ok(d("-8")));
    assert_eq!(d("0").checked_pow(d("0")), Ok(Decimal::ONE));
    assert_eq!(d("2").checked_pow(d("127")), Err(DecimalError::Overflow));
    assert_eq!(d("1").checked_pow(d("100000")), Ok(Decimal::ONE));
    assert_eq!(d("1").checked_pow(d("100001")), Err(DecimalError::Overflow));
    assert_eq!(
        d("0").checked_pow(d("-1")),
        Err(DecimalError::DivisionByZero)
    );
    assert_eq!(
        d("4").checked_pow(d("0.5")),
        Err(DecimalError::Exponent(d("0.5")))
    );
}

#[test]
fn rounding_is_that_of_money() {
    for (value, digits, rounded) in [
        ("2.345", 2, "2.35"),
        ("-2.345", 2, "-2.35"),
        ("2.5", 0, "3"),
        ("2.344", 2, "2.34"),
        ("0.4", 0, "0"),
        ("-0.5", 0, "-1"),
        ("7", 3, "7"),
        ("1.25", 9, "1.25"),
    ] {
        assert_eq!(d(value).round(digits), d(rounded), "{value}");
    }
    assert!(d("33.33").is_rounding_of(d("33.3333333")) && d("5").is_rounding_of(d("5")));
    assert!(!d("33").is_rounding_of(d("33.3333333")) && !d("33.34").is_rounding_of(d("33.333")));
    assert_eq!((d("-1.5").floor(), d("-1.5").ceil()), (d("-2"), d("-1")));
    assert_eq!(
        (d("1.5").floor(), d("1.5").ceil(), d("3").ceil()),
        (d("1"), d("2"), d("3"))
    );
}

#[test]
fn json_holds_it_as_a_string() {
    assert_eq!(serde_json::to_string(&d("0.10")).unwrap(), "\"0.1\"");
    for text in ["\"12.5\"", "\"12.50\""] {
        assert_eq!(serde_json::from_str::<Decimal>(text).unwrap(), d("12.5"));
    }
    assert_eq!(serde_json::from_str::<Decimal>("-3").unwrap(), d("-3"));
    for bad in ["12.5", "\"x\"", "null"] {
        assert!(serde_json::from_str::<Decimal>(bad).is_err());
    }
}

/// Small numbers whose rational arithmetic fits an i128.
fn small() -> impl Strategy<Value = (i128, u32)> {
    (-1_000_000_000_000_i128..1_000_000_000_000, 0_u32..6)
}

fn of((mantissa, scale): (i128, u32)) -> Decimal {
    Decimal::new(mantissa, scale).unwrap()
}

/// Any number, with all magnitudes and scales.
fn any_decimal() -> impl Strategy<Value = Decimal> {
    (any::<i128>(), 0_u32..=127, 0_u32..=28).prop_filter_map("least i128", |(m, shift, scale)| {
        Decimal::new(m >> shift, scale)
    })
}

proptest! {
    #[test]
    fn small_numbers_agree_with_fractions(a in small(), b in small()) {
        let (x, y) = (of(a), of(b));
        let (p, q) = (10_i128.pow(a.1), 10_i128.pow(b.1));
        prop_assert_eq!(x.checked_add(y).unwrap(), of((a.0 * q + b.0 * p, a.1 + b.1)));
        prop_assert_eq!(x.checked_sub(y).unwrap(), of((a.0 * q - b.0 * p, a.1 + b.1)));
        prop_assert_eq!(x.checked_mul(y).unwrap(), of((a.0 * b.0, a.1 + b.1)));
        prop_assert_eq!(x.cmp(&y), (a.0 * q).cmp(&(b.0 * p)));
        // Rounded at the 28th digit, so the product with the divisor comes back nearly.
        if b.0 != 0 {
            let quotient = x.checked_div(y).unwrap();
            let error = quotient.checked_mul(y).unwrap().checked_sub(x).unwrap().abs();
            prop_assert!(error <= y.abs().checked_mul(d("0.0000000000000000000000001")).unwrap());
        }
    }

    #[test]
    fn whole_quotients_come_back(a in any::<i64>(), b in any::<i64>()) {
        let (x, y) = (Decimal::from(a), Decimal::from(b));
        if b != 0 {
            prop_assert_eq!(x.checked_mul(y).unwrap().checked_div(y), Ok(x));
        }
    }

    #[test]
    fn any_numbers_keep_the_laws(a in any_decimal(), b in any_decimal()) {
        prop_assert_eq!(a.checked_add(b), b.checked_add(a));
        prop_assert_eq!(a.checked_mul(b), b.checked_mul(a));
        prop_assert_eq!(a.checked_sub(a), Ok(Decimal::ZERO));
        prop_assert_eq!(a.checked_sub(b).map(|d| -d), b.checked_sub(a));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
        if let Ok(q) = a.checked_div(b) {
            prop_assert_eq!(q.is_negative(), q != Decimal::ZERO && a.is_negative() != b.is_negative());
        }
        let _ = a.checked_pow(b);
        prop_assert!(a.floor() <= a && a.ceil() >= a && a.round(3).checked_sub(a).unwrap().abs() <= d("0.0005"));
        prop_assert_eq!(a.to_string().parse::<Decimal>().unwrap(), a);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-+.0-9e]{0,45}") {
        if let Ok(value) = text.parse::<Decimal>() {
            prop_assert_eq!(value.to_string().parse::<Decimal>().unwrap(), value);
        }
    }

    #[test]
    fn wide_division_undoes_multiplication(a: u128, b in 1_u128.., r: u128) {
        let r = r % b;
        let n = Wide::product(a, b).add(Wide::from(r));
        prop_assert_eq!(n.div_rem(b), (Wide::from(a), r));
        prop_assert_eq!(n.sub(Wide::from(r)), Wide::product(a, b));
        prop_assert_eq!(Wide::from(a).scaled(38).div_pow10_half_even(38, false), Wide::from(a));
    }
}
