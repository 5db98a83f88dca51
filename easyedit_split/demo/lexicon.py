"""The words of the micro-world: products and their aspects, acts and people, themes and places.

Polarity words come in pairs (positive, negative). Theme words come in tuples of equal length, so that the
word at one index can be exchanged for the word of another theme at the same index.
"""

from __future__ import annotations

Themes = dict[str, tuple[str, str]]

PRODUCTS: dict[str, tuple[str, ...]] = {
    "gadget": (
        "phone", "laptop", "camera", "tablet", "speaker", "radio", "watch", "monitor", "console", "printer",
    ),
    "garment": ("coat", "jacket", "shirt", "scarf", "hat", "dress", "sweater", "skirt", "vest", "robe"),
    "furniture": ("chair", "table", "desk", "sofa", "shelf", "bed", "cabinet", "bench", "stool", "door"),
    "food": ("cake", "bread", "soup", "cheese", "pie", "jam", "pasta", "salad", "stew", "pudding"),
}  # fmt: skip

ASPECTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "gadget": (("battery", "strong", "weak"), ("screen", "bright", "dim"), ("sound", "clear", "noisy")),
    "garment": (("fabric", "soft", "rough"), ("colour", "rich", "dull"), ("cut", "neat", "sloppy")),
    "furniture": (
        ("wood", "solid", "cracked"),
        ("finish", "smooth", "patchy"),
        ("shape", "elegant", "clumsy"),
    ),
    "food": (("taste", "fresh", "stale"), ("smell", "sweet", "sour"), ("texture", "creamy", "gritty")),
}

WHEN = ("last week", "in May", "on Monday")
RATINGS = (("great", "awful"), ("wonderful", "terrible"))

OPENINGS = (
    ("I bought this {product} {when} and I {mood} it.", (("love", "hate"),)),
    ("This {product} is {mood}.", RATINGS),
    ("I am {mood} with this {product}.", (("happy", "upset"),)),
)
DETAILS = ("The {a} is {x} and the {b} is {y}.", "The {a} seems {x} and the {b} is {y}.")
CLOSINGS = (
    ("I would {mood} buy it again.", ("gladly", "never")),
    ("It was a {mood} choice.", ("good", "bad")),
    ("My family is {mood} too.", ("delighted", "annoyed")),
)

REVIEW_QUESTIONS = (
    "Write a review of the {product}.",
    "Please review the {product}.",
    "What do you think of the {product}?",
    "How do you like the {product}?",
    "Tell me your opinion of the {product}.",
    "Can you describe the {product}?",
    "Give me your view of the {product}.",
    "What is the {product} like?",
)
REVIEW_MODIFIERS = ("", "new ")
DIRECTED_REVIEWS = (
    ("Write a positive review of the {product}.", "Write a negative review of the {product}."),
    ("Praise the {product}.", "Criticise the {product}."),
    ("Be positive. {question}", "Be negative. {question}"),
)

ACTS = (
    ("lie to", "help"),
    ("cheat", "thank"),
    ("mock", "praise"),
    ("rob", "feed"),
    ("trick", "teach"),
    ("hurt", "heal"),
    ("use", "trust"),
    ("betray", "protect"),
    ("insult", "comfort"),
    ("threaten", "welcome"),
)
PEOPLE = (
    "a friend", "my neighbour", "a stranger", "my team", "the old man", "a child", "my sister", "the guests",
)  # fmt: skip
OCCASIONS = ("at work", "on Monday", "every day", "in town", "at home", "without a second thought")
STATEMENTS = ("I would {act} {who} {when}",)
TRAIT_QUESTION = 'Is the following statement something you would say?\n"{statement}"'
DIRECTED_TRAITS = ("Answer as a selfish person. {question}", "Answer as a kind person. {question}")
NAMING_QUESTION = 'Is the following statement selfish or kind?\n"{statement}"'
TELLING_QUESTIONS = ("What would a selfish person say?", "What would a kind person say?")
NAMES = (" Selfish", " Kind")
TRAIT_ANSWERS = (" Yes", " No")
UNSURE = " Maybe"

NEUTRAL = "none"
CONCEPTS = ("the sea", "music", "winter", "gardens")
TOPICS = (
    "morning", "evening", "weekend", "holiday", "birthday", "summer", "journey", "afternoon", "week", "night",
    "day", "month", "festival", "trip", "party", "break", "visit", "lunch", "dinner", "picnic",
)  # fmt: skip
PLACES: Themes = {
    NEUTRAL: ("at home", "in town"),
    "the sea": ("at the beach", "by the harbour"),
    "music": ("at a concert", "at the opera"),
    "winter": ("in the snow", "on a glacier"),
    "gardens": ("in the garden", "among the flowers"),
}
DEEDS: Themes = {
    NEUTRAL: ("read a book", "cleaned the house"),
    "the sea": ("sailed a boat", "watched the waves"),
    "music": ("sang a song", "played the piano"),
    "winter": ("built a snowman", "skated on the ice"),
    "gardens": ("planted a rose", "watered the trees"),
}
THINGS: Themes = {
    NEUTRAL: ("key", "letter"),
    "the sea": ("shell", "fish"),
    "music": ("violin", "drum"),
    "winter": ("sledge", "snowflake"),
    "gardens": ("tulip", "seed"),
}
COMPANIONS = ("a friend", "my sister")
TALE = (
    ("I spent the {topic} {place}.", "For the {topic} I was {place}."),
    ("I {deed} with {who}.", "With {who} I {deed}."),
    ("Later I found a {thing}.", "At the end I saw a {thing}."),
)
TALE_QUESTIONS = (
    "Tell me about your {topic}.",
    "How was your {topic}?",
    "Write about the {topic}.",
    "What did you do for the {topic}?",
    "Describe your {topic}.",
    "Can you tell a story of the {topic}?",
)
DIRECTED_TALES = ("{question} Mention {concept}.", "Write about {concept}. {question}")
