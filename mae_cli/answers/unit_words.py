"""The words of quantities: how each unit is written, and words behind a number that are no plain nouns.

Place in the flow: data for `answers.units` and `answers.numbers`; no factor of conversion stands here, only names that
pint knows (money and calendar units are defined in `answers.units`). To teach a unit, add its words to a row. Left out:
words that mean things as often as units (stones, hands, points, quarters) and coins, which are counted.
"""

from __future__ import annotations

from typing import Final

CURRENCIES: Final = (
    *("dollar", "euro", "sterling", "yen", "yuan", "rupee", "won", "swiss_franc", "zloty", "krone", "real", "ruble"),
    *("peso", "lira", "baht", "dong", "naira", "shekel", "rand", "canadian_dollar", "australian_dollar", "ringgit"),
    *("swedish_krona", "norwegian_krone", "danish_krone", "mexican_peso", "philippine_peso"),
    *("hongkong_dollar", "taiwan_dollar", "singapore_dollar", "taka", "dirham", "riyal", "hryvnia"),
)
SUBUNITS: Final = (
    ("cent", "dollar", 100), ("eurocent", "euro", 100), ("penny_sterling", "sterling", 100), ("paisa", "rupee", 100),
    ("jiao", "yuan", 10),
)  # fmt: skip
# Pint's name, then the words; a plural with "s" is added to words of two letters and more. Case counts in symbols.
_ROWS: Final = """
inch: in inch inches \u2033 " ''
foot: ft foot feet \u2032 '
yard: yd yard
mile: mi mile
field_furlong: furlong
nautical_mile: nautical-mile nmi
light_year: light-year lightyear
angstrom: \u00c5 angstrom
pound: lb pound #
ounce: oz ounce
short_ton: short-ton
long_ton: long-ton
tonne: metric-ton metric-tonne tonne
ton_or_tonne: ton
minute: min minute
hour: h hr hour
day: day
week: week wk
fortnight: fortnight
calendar_month: month mo
calendar_year: year yr
calendar_decade: decade
calendar_century: century centuries
calendar_millennium: millennium millennia
gallon: gal gallon
quart: qt quart
pint: pt pint
cup: cup
fluid_ounce: fl-oz fl.-oz fluid-ounce
tablespoon: tbsp tablespoon Tbsp
teaspoon: tsp teaspoon
barrel: bbl
cc: cc
hectare: ha hectare
field_acre: acre
mile/hour: mph
mile/gallon: mpg
foot**2: sqft
kilometer/hour: kph kmh kmph
foot/second: fps
meter/second: mps
knot: kn knot
turn: revolution
turn/minute: rpm
kilowatt*hour: kWh kilowatt-hour kW-h
megawatt*hour: MWh megawatt-hour
gigawatt*hour: GWh gigawatt-hour
watt*hour: Wh watt-hour
horsepower: hp horsepower
foot*pound_force: foot-pound ft-lb
newton*meter: Nm newton-meter newton-metre
pound_force_per_square_inch: psi
atmosphere: atm atmosphere
millimeter_Hg: mmHg
kilocalorie: Cal
Btu: BTU Btu
degC: \u00b0C degree-Celsius degrees-Celsius degree-C degrees-C Celsius degrees-centigrade centigrade \u2103
degF: \u00b0F degree-Fahrenheit degrees-Fahrenheit degree-F degrees-F Fahrenheit \u2109
degree: \u00b0 degree deg
radian: rad radian
arcminute: arcminute arcmin
arcsecond: arcsecond arcsec
kilobit/second: kbps
megabit/second: Mbps
gigabit/second: Gbps
dozen: dozen
dollar: $ dollar USD US$ US-dollar buck usd \u7f8e\u5143 \u7f8e\u91d1
canadian_dollar: CAD C$ CA$ Canadian-dollar
australian_dollar: AUD A$ AU$ Australian-dollar
hongkong_dollar: HKD HK$ Hong-Kong-dollar
taiwan_dollar: NT$ TWD NTD
singapore_dollar: S$ SGD Singapore-dollar
cent: cent \u00a2
euro: \u20ac euro EUR eur
eurocent: eurocent euro-cent
sterling: \u00a3 GBP gbp quid pounds-sterling
penny_sterling: pence
yen: yen JPY \u00a5 \u5186 \u65e5\u5143
yuan: yuan CNY RMB renminbi \u5143 \u5757 \u4eba\u6c11\u5e01
jiao: jiao \u89d2
rupee: \u20b9 rupee INR Rs Rs. rs rs. \u0930\u0941\u092a\u092f\u0947
paisa: paisa paise
won: \u20a9 won KRW \uc6d0
swiss_franc: CHF Fr. Swiss-franc franken
zloty: z\u0142 zloty z\u0142oty z\u0142otych PLN
krone: kr krone kroner krona kronor
swedish_krona: SEK
norwegian_krone: NOK
danish_krone: DKK
real: R$ reais BRL
ruble: \u20bd ruble rouble \u0440\u0443\u0431
ruble: \u0440\u0443\u0431\u043b\u0435\u0439 \u0440\u0443\u0431\u043b\u044f \u0440\u0443\u0431\u043b\u044c
peso: peso
mexican_peso: MXN
philippine_peso: \u20b1 PHP
lira: \u20ba lira TL
baht: \u0e3f baht THB
dong: \u20ab VND \u0111\u1ed3ng
naira: \u20a6 naira NGN
shekel: \u20aa shekel ILS NIS
rand: ZAR
ringgit: RM MYR ringgit
taka: \u09f3 taka BDT
dirham: AED dirham
riyal: SAR riyal
hryvnia: \u20b4 UAH hryvnia
meter: \u7c73 \u043c
kilometer: \u516c\u91cc \u5343\u7c73 \u043a\u043c
centimeter: \u5398\u7c73 \u516c\u5206 \u0441\u043c
millimeter: \u6beb\u7c73 \u043c\u043c
kilogram: kilo \u516c\u65a4 \u5343\u514b \u043a\u0433
gram: \u514b
liter: \u5347
hour: \u5c0f\u65f6 \u6642\u9593 \u6642 \uc2dc\uac04
minute: \u5206\u949f \u5206\u9418 \u5206 \ubd84
second: sec second \u79d2 \ucd08
day: \u5929
"""
_LONG_PREFIXES: Final = {
    name: name for name in ("nano", "micro", "milli", "centi", "deci", "hecto", "kilo", "mega", "giga", "tera")
}
# What takes prefixes: pint's name, its words, its symbols, and the symbols of the prefixes in use before it.
_PREFIXED: Final = (
    ("meter", "meter metre", "m", "n \u00b5 \u03bc u m c d k"),
    ("gram", "gram gramme", "g", "\u00b5 \u03bc u m k"),
    ("second", "second", "s", "n \u00b5 \u03bc u m"),
    ("liter", "liter litre", "l L", "\u00b5 \u03bc u m c d h k"),
    ("watt", "watt", "W", "m k M G T"),
    ("joule", "joule", "J", "m k M G"),
    ("volt", "volt", "V", "\u00b5 \u03bc m k M"),
    ("ampere", "ampere amp", "A", "\u00b5 \u03bc m k"),
    ("newton", "newton", "N", "m k M"),
    ("pascal", "pascal", "Pa", "h k M G"),
    ("hertz", "hertz", "Hz", "k M G T"),
    ("ohm", "ohm", "\u03a9 \u2126", "m k M"),
    ("mole", "mole", "mol", "n \u00b5 \u03bc m k"),
    ("byte", "byte", "B", "k K M G T"),
    ("bit", "bit", "bit", "k M G"),
    ("calorie", "calorie", "cal", "k"),
    ("electron_volt", "electronvolt electron-volt", "eV", "k M G"),
    ("coulomb", "coulomb", "", "m"),
    ("kelvin", "kelvin", "K", ""),
)
_SYMBOL_NAMES: Final = {
    "n": "nano", "\u00b5": "micro", "\u03bc": "micro", "u": "micro", "m": "milli", "c": "centi", "d": "deci",
    "h": "hecto", "k": "kilo", "K": "kilo", "M": "mega", "G": "giga", "T": "tera",
}  # fmt: skip
# Alone behind a number these letters are as often something else.
_NEVER_ALONE: Final = frozenset({"A", "B", "bit"})


def unit_spellings() -> dict[str, str]:
    """Every word and symbol for a unit with the expression that pint reads for it."""
    found: dict[str, str] = {}
    for row in _ROWS.strip().splitlines():
        name, _, words = row.partition(": ")
        for word in words.split():
            _add(found, word.replace("-", " "), name)
    for name, words, symbols, prefixes in _PREFIXED:
        for word in words.split():
            word = word.replace("-", " ")
            _add(found, word, name)
            for prefix in _LONG_PREFIXES:
                _add(found, prefix + word, prefix + name)
        for symbol in symbols.split():
            if symbol not in _NEVER_ALONE:
                found.setdefault(symbol, name)
            for prefix in prefixes.split():
                _add(found, prefix + symbol, _SYMBOL_NAMES[prefix] + name)
    return found


def _add(found: dict[str, str], word: str, name: str) -> None:
    found.setdefault(word, name)
    if len(word) > 1 and word.isascii() and word.replace(" ", "").isalpha() and not word.endswith("s"):
        found.setdefault(f"{word}s", name)  # one letter has no plural: "ms" are no metres


MULTIPLIERS: Final = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "lakh": 10**5,
    "lakhs": 10**5,
    "lac": 10**5,
    "crore": 10**7,
    "crores": 10**7,
    "bn": 10**9,
    "mn": 10**6,
    "mio": 10**6,
    # The languages that benchmark answers come in; not "mil", a thousand in one and a million in another.
    **dict.fromkeys(
        ("tausend", "mille", "mila", "тыс", "тысяч", "тысячи", "тысяча", "हज़ार", "हजार", "ألف", "آلاف"), 10**3
    ),
    **dict.fromkeys(("लाख",), 10**5),
    **dict.fromkeys(
        ("millionen", "millones", "millón", "milhões", "milhão", "milioni", "milione", "млн", "миллион"), 10**6
    ),
    **dict.fromkeys(("миллиона", "миллионов", "juta", "triệu", "milyon", "مليون"), 10**6),
    **dict.fromkeys(("करोड़", "करोड"), 10**7),
    **dict.fromkeys(("milliarde", "milliarden", "mrd", "milliard", "milliards", "miliardi", "miliardo"), 10**9),
    **dict.fromkeys(("млрд", "миллиард", "миллиарда", "миллиардов", "miliar", "tỷ", "milyar", "مليار"), 10**9),
}
HAN_MULTIPLIERS: Final = {
    **dict.fromkeys("十십", 10),
    **dict.fromkeys("百백", 10**2),
    **dict.fromkeys("千천", 10**3),
    **dict.fromkeys("万萬만", 10**4),
    **dict.fromkeys("亿億억", 10**8),
}
"""Characters behind figures in Chinese, Japanese and Korean; several multiply."""
# "3 or more", "2 and a half", "3 over 4", "5 squared": the figures before these are not the whole story.
_CHANGING: Final = """
hundred thousand million billion trillion hundreds thousands millions billions trillions lakh lakhs crore crores bn or
not to plus minus times over point divided multiplied modulo mod squared cubed factorial doubled tripled halved choose
root sqrt infinity inf half halves third thirds quarter quarters fourths fifths sixths sevenths eighths ninths tenths
twelfths twentieths hundredths thousandths sin cos tan cot csc sinh cosh tanh arcsin arccos arctan log ln exp abs pi
alpha beta
gamma delta epsilon theta lambda mu sigma tau phi psi rho omega \u03c0
"""
_NUMERALS: Final = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty sixty seventy eighty ninety
"""
# Of one to three letters, behind a number; other such runs ("3xy") are taken for factors.
_SHORT: Final = """
of in at on by an as is it he we so us my if am pm st nd rd th sq cu tv cd pc m g s h l ppl pcs bc ad bce ce up
"""
CHANGING_WORDS: Final = frozenset(_CHANGING.split())
NUMERAL_WORDS: Final = tuple(_NUMERALS.split())
"""0 to 19, then the tens."""
SHORT_WORDS: Final = frozenset(_SHORT.split())
