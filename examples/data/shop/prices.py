"""Retail prices from yarn weight and weaving time."""

YARN_PER_KG = 14.20      # to be updated from March 2026
HOUR = 27.50             # wages with everything
MARGIN = 1.65
PRODUCTS = {
    # name: (kg of yarn, hours)
    "Fell throw": (0.9, 0.8),
    "Tarn blanket": (1.8, 1.25),
    "Cot blanket": (0.6, 0.7),
}


def retail(kg, hours, vat=0.20):
    """Price for the shop in pounds, rounded up to a whole pound."""
    net = (kg * YARN_PER_KG + hours * HOUR) * MARGIN
    return int(net * (1 + vat)) + 1


if __name__ == "__main__":
    for name, (kg, hours) in PRODUCTS.items():
        print(f"{name:15} {retail(kg, hours):4d}")
