"""Makes server/sample/events.ndjson: some 600 invented events in real cities, always the same ones.

    python scripts/make_sample.py            writes the file
    python scripts/make_sample.py --check    exit 1 when the file is not what this script makes

City names and coordinates are from Natural Earth's populated places (1:110m, public domain); everything else is made up.
Times are laid round RECORDED, which is also the newest createdAt: importing with --shift-to-now=createdAt makes them current.
"""

import json
import math
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

TARGET = Path(__file__).parent.parent / "server" / "sample" / "events.ndjson"
RECORDED = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVENTS = 600
KM_A_DEGREE = 111.2

# name|latitude|longitude|time zone|how many events compared with others
CITIES = """
London|51.502|-0.119|Europe/London|4
Paris|48.858|2.353|Europe/Paris|4
Berlin|52.524|13.400|Europe/Berlin|4
Madrid|40.402|-3.685|Europe/Madrid|2
Rome|41.898|12.481|Europe/Rome|3
Amsterdam|52.352|4.915|Europe/Amsterdam|3
Brussels|50.835|4.331|Europe/Brussels|1
Vienna|48.202|16.365|Europe/Vienna|2
Prague|50.087|14.423|Europe/Prague|2
Budapest|47.502|19.081|Europe/Budapest|2
Warsaw|52.231|21.005|Europe/Warsaw|1
Copenhagen|55.681|12.562|Europe/Copenhagen|2
Stockholm|59.324|18.066|Europe/Stockholm|2
Oslo|59.919|10.748|Europe/Oslo|1
Helsinki|60.164|24.932|Europe/Helsinki|1
Tallinn|59.434|24.728|Europe/Tallinn|1
Riga|56.950|24.100|Europe/Riga|1
Vilnius|54.683|25.317|Europe/Vilnius|1
Dublin|53.347|-6.257|Europe/Dublin|2
Reykjavík|64.143|-21.937|Atlantic/Reykjavik|1
Lisbon|38.725|-9.147|Europe/Lisbon|2
Athens|37.985|23.731|Europe/Athens|2
Sofia|42.685|23.315|Europe/Sofia|1
Bucharest|44.435|26.098|Europe/Bucharest|1
Belgrade|44.821|20.466|Europe/Belgrade|1
Zagreb|45.800|16.000|Europe/Zagreb|1
Ljubljana|46.055|14.515|Europe/Ljubljana|1
Bratislava|48.150|17.117|Europe/Bratislava|1
Sarajevo|43.850|18.383|Europe/Sarajevo|1
Tirana|41.328|19.819|Europe/Tirane|1
Valletta|35.900|14.515|Europe/Malta|1
Geneva|46.210|6.140|Europe/Zurich|1
Luxembourg|49.612|6.130|Europe/Luxembourg|1
The Hague|52.080|4.270|Europe/Amsterdam|1
Kyiv|50.435|30.515|Europe/Kyiv|1
Istanbul|41.018|28.974|Europe/Istanbul|3
Ankara|39.929|32.862|Europe/Istanbul|1
Tbilisi|41.727|44.789|Asia/Tbilisi|1
Yerevan|40.183|44.512|Asia/Yerevan|1
Baku|40.397|49.860|Asia/Baku|1
Tel Aviv|32.082|34.768|Asia/Jerusalem|1
Amman|31.952|35.931|Asia/Amman|1
Beirut|33.874|35.508|Asia/Beirut|1
Dubai|25.215|55.287|Asia/Dubai|2
Doha|25.287|51.533|Asia/Qatar|1
Muscat|23.585|58.378|Asia/Muscat|1
Riyadh|24.634|46.720|Asia/Riyadh|1
Tashkent|41.304|69.269|Asia/Tashkent|1
Bishkek|42.875|74.583|Asia/Bishkek|1
New Delhi|28.600|77.200|Asia/Kolkata|2
Mumbai|19.068|72.876|Asia/Kolkata|3
Bengaluru|12.972|77.558|Asia/Kolkata|2
Kolkata|22.570|88.369|Asia/Kolkata|1
Dhaka|23.725|90.407|Asia/Dhaka|1
Kathmandu|27.719|85.315|Asia/Kathmandu|1
Thimphu|27.473|89.639|Asia/Thimphu|1
Colombo|6.932|79.858|Asia/Colombo|1
Bangkok|13.752|100.515|Asia/Bangkok|2
Hanoi|21.035|105.848|Asia/Ho_Chi_Minh|1
Phnom Penh|11.552|104.915|Asia/Phnom_Penh|1
Vientiane|17.967|102.600|Asia/Vientiane|1
Kuala Lumpur|3.140|101.689|Asia/Kuala_Lumpur|1
Singapore|1.295|103.854|Asia/Singapore|3
Jakarta|-6.172|106.827|Asia/Jakarta|2
Manila|14.606|120.980|Asia/Manila|1
Hong Kong|22.307|114.183|Asia/Hong_Kong|2
Taipei|25.036|121.568|Asia/Taipei|2
Shanghai|31.218|121.435|Asia/Shanghai|2
Beijing|39.902|116.394|Asia/Shanghai|2
Chengdu|30.672|104.068|Asia/Shanghai|1
Seoul|37.568|126.998|Asia/Seoul|3
Tokyo|35.687|139.749|Asia/Tokyo|4
Kyoto|35.032|135.748|Asia/Tokyo|2
Osaka|34.691|135.504|Asia/Tokyo|2
Ulaanbaatar|47.919|106.915|Asia/Ulaanbaatar|1
Sydney|-33.871|151.213|Australia/Sydney|3
Melbourne|-37.818|144.973|Australia/Melbourne|3
Canberra|-35.283|149.129|Australia/Sydney|1
Auckland|-36.848|174.763|Pacific/Auckland|2
Wellington|-41.292|174.777|Pacific/Auckland|1
Suva|-18.133|178.442|Pacific/Fiji|1
Apia|-13.836|-171.769|Pacific/Apia|1
Cairo|30.052|31.248|Africa/Cairo|2
Tunis|36.803|10.180|Africa/Tunis|1
Algiers|36.765|3.049|Africa/Algiers|1
Casablanca|33.602|-7.618|Africa/Casablanca|1
Dakar|14.718|-17.475|Africa/Dakar|1
Abidjan|5.323|-4.020|Africa/Abidjan|1
Accra|5.552|-0.219|Africa/Accra|1
Lagos|6.445|3.390|Africa/Lagos|2
Nairobi|-1.281|36.815|Africa/Nairobi|2
Kampala|0.319|32.581|Africa/Kampala|1
Kigali|-1.952|30.059|Africa/Kigali|1
Addis Ababa|9.035|38.698|Africa/Addis_Ababa|1
Dar es Salaam|-6.798|39.266|Africa/Dar_es_Salaam|1
Lusaka|-15.415|28.281|Africa/Lusaka|1
Windhoek|-22.570|17.084|Africa/Windhoek|1
Gaborone|-24.646|25.912|Africa/Gaborone|1
Johannesburg|-26.168|28.028|Africa/Johannesburg|2
Cape Town|-33.918|18.433|Africa/Johannesburg|2
Antananarivo|-18.915|47.515|Indian/Antananarivo|1
Port Louis|-20.167|57.500|Indian/Mauritius|1
New York|40.722|-73.996|America/New_York|4
Washington, D.C.|38.901|-77.011|America/New_York|2
Miami|25.790|-80.226|America/New_York|2
Atlanta|33.739|-84.368|America/New_York|1
Chicago|41.848|-87.635|America/Chicago|3
Houston|29.741|-95.348|America/Chicago|1
Denver|39.741|-104.986|America/Denver|1
Los Angeles|34.049|-118.232|America/Los_Angeles|3
San Francisco|37.784|-122.400|America/Los_Angeles|4
Vancouver|49.275|-123.124|America/Vancouver|2
Toronto|43.665|-79.389|America/Toronto|2
Ottawa|45.419|-75.702|America/Toronto|1
Mexico City|19.444|-99.133|America/Mexico_City|3
Monterrey|25.672|-100.332|America/Monterrey|1
Havana|23.134|-82.366|America/Havana|1
Kingston|17.977|-76.767|America/Jamaica|1
San José|9.930|-84.079|America/Costa_Rica|1
Panama City|8.970|-79.535|America/Panama|1
Bogotá|4.598|-74.085|America/Bogota|2
Quito|-0.213|-78.502|America/Guayaquil|1
Lima|-12.046|-77.052|America/Lima|2
La Paz|-16.496|-68.152|America/La_Paz|1
Santiago|-33.440|-70.651|America/Santiago|2
Buenos Aires|-34.611|-58.433|America/Argentina/Buenos_Aires|3
Montevideo|-34.905|-56.187|America/Montevideo|1
Asunción|-25.291|-57.626|America/Asuncion|1
São Paulo|-23.557|-46.627|America/Sao_Paulo|3
Rio de Janeiro|-22.907|-43.212|America/Sao_Paulo|3
Brasília|-15.781|-47.918|America/Sao_Paulo|1
"""

# emoji|categories|hours it lasts|titles, separated by /
KINDS = """
🎷|music,jazz|3|Jazz in the {venue}/Late Trio at the {venue}/{city} Jazz Jam
🎸|music,rock|3|Three Chords and the {venue}/Garage Band Night/{city} Loud Club
🎻|music,classical|2|Quartet by Candlelight/Bach to Back/Strings in the {venue}
🎧|music,dance|5|Vinyl Only Night/{city} Silent Disco/Slow Techno Social
🎤|music,party|4|Karaoke for the Tone-Deaf/Open Mic at the {venue}/{city} Sings
💃|dance|3|Salsa for Two Left Feet/Tango at the {venue}/Swing by the {venue}
🍜|food|2|Noodle Crawl of {city}/Slurp Club/Broth Academy
🌮|food,street|4|Taco Truck Rally/{city} Street Food Market/Hot Sauce Dare
☕|food,coffee|2|Cupping at the {venue}/Latte Art Throwdown/{city} Coffee Walk
🧀|food|2|Cheese and Other Feelings/Blind Cheese Tasting/Fondue Fondness
🍞|food,workshop|3|Sourdough for Beginners/Bread Swap at the {venue}/The Crumb Society
🎨|art|4|Drawing in the {venue}/Paint {city} Red/Open Studios of {city}
🖼|art,museum|3|After Hours at the {venue}/Curators Confess/Small Paintings, Big Frames
🎭|theatre|3|Improv at the {venue}/Shakespeare in Forty Minutes/{city} Fringe Night
🎬|film|3|Films on the Roof/Silent Film, Loud Piano/{city} Shorts
📚|books,talk|2|Book Swap at the {venue}/Read in Silence Club/Poets of {city}
♟|games|3|Blitz Chess in the {venue}/{city} Chess Picnic/Slow Chess, Fast Tea
🎲|games|4|Board Games at the {venue}/Dice and Dumplings/{city} Game Night
🏃|sport,outdoors|2|{city} Easy Run/Five Kilometres and a Pastry/Run to the {venue}
🚴|sport,outdoors|3|Slow Roll through {city}/Hill Repeats and Regrets/Bike Repair Picnic
🧘|wellness|1|Yoga in the {venue}/Breathe, {city}/Stretch and Nap
🧗|sport|3|Boulder and Chill/Climb Night at the {venue}/Learn to Fall
⚽|sport|2|Kickabout at the {venue}/{city} Five-a-Side/Walking Football
🏓|sport,games|2|Ping Pong Roundabout/{city} Table Tennis Club/Paddles at the {venue}
🐶|family,outdoors|2|Dachshund Meet-up/{city} Dog Parade/Puppies in the {venue}
🔭|science,outdoors|3|Stargazing over {city}/Moon Watch at the {venue}/Telescope Night
🧪|science,talk|2|Science Slam {city}/Explosions for Adults/Ask a Biologist
💻|tech,talk|3|{city} Python Meetup/Hack the {venue}/Show Your Side Project
🤖|tech,workshop|4|Build a Very Small Robot/Solder and Soda/Robots of {city}
🪴|nature,market|3|Plant Swap at the {venue}/{city} Seed Library/Cactus Clinic
🧶|crafts|2|Knit Night at the {venue}/Mend It, Don't Bin It/Wool and Wine
🏺|crafts,workshop|3|Throw a Pot/Clay Day at the {venue}/{city} Kiln Opening
📷|art,outdoors|3|Photo Walk: Doors of {city}/Film Camera Club/Light and Shade in {city}
🛶|outdoors,sport|3|Paddle round {city}/Canoe and Cake/Kayak Quietly
🎪|family,theatre|3|Circus School Open Day/Juggling at the {venue}/{city} Busker Ball
🛍|market|5|Flea Market at the {venue}/Night Market of {city}/Things Nobody Needs
🗣|talk,languages|2|Language Exchange {city}/Bad French, Good People/Toasts at the {venue}
🎃|party|4|Costume Party at the {venue}/{city} Masked Ball/Come as You Aren't
"""

VENUES = """
Old Market Hall
Riverside Park
Copper Kettle
Botanical Garden
Blue Door
Central Library
Printing House
Glass Pavilion
Boat House
Tram Depot
Observatory
Lantern Yard
Corn Exchange
Little Theatre
Rooftop
Brick Works
Orange Garden
Winter Garden
Harbour Steps
Union Hall
Paper Mill
Clock Tower
Courtyard
Greenhouse
Velvet Room
Station Square
"""

DESCRIPTIONS = """
Everyone is welcome, nobody is good at it.
Bring a friend, or find one there.
Free entry; the hat goes round.
Doors open half an hour before.
In the local language, with hands and feet.
Rain or shine.
Small, loud and friendly.
First timers go first.
Bring your own cup.
Seats are few, cushions are many.
"""


def main() -> int:
    if "--check" in sys.argv:
        return 0 if TARGET.read_text() == text() else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text())
    print(f"{TARGET}: {EVENTS} events, {TARGET.stat().st_size / 1024:.0f} KiB")
    return 0


def text() -> str:
    """The file's text, the same each time."""
    return "".join(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in events())


def events() -> list[dict[str, object]]:
    dice = random.Random(2026)
    cities = [line.split("|") for line in CITIES.strip().splitlines()]
    once = list(cities)
    more = dice.choices(cities, weights=[int(city[4]) for city in cities], k=EVENTS - len(once))
    spread = dice.sample(once + more, EVENTS)
    return [one(number, city, dice) for number, city in enumerate(spread)]


def one(number: int, city: list[str], dice: random.Random) -> dict[str, object]:
    emoji, categories, hours, titles = dice.choice(KINDS.strip().splitlines()).split("|")
    venue = dice.choice(VENUES.strip().splitlines())
    start = RECORDED + starts_in(dice)
    created = RECORDED - timedelta(minutes=int(dice.expovariate(1 / 2400))) if number else RECORDED
    interest = dice.random() ** 3
    return {
        "id": f"sample-{number:03d}",
        "title": dice.choice(titles.split("/")).format(city=city[0], venue=venue),
        "emoji": emoji,
        "description": dice.choice(DESCRIPTIONS.strip().splitlines()),
        "categories": categories.split(","),
        "location": near(float(city[1]), float(city[2]), dice),
        "start": iso(start),
        "end": iso(start + timedelta(hours=int(hours))),
        "timezone": city[3],
        "scanCount": int(14 * interest),
        "saveCount": int(7 * interest * dice.random()),
        "rsvpCount": int(4 * interest * dice.random()),
        "confidence": round(dice.uniform(0.4, 1.0), 2),
        "createdAt": iso(created),
        "properties": {"venue": venue, "city": city[0]},
    }


def starts_in(dice: random.Random) -> timedelta:
    """Many soon, some running, fewer as the weeks go on; on the quarter of an hour."""
    low, high = dice.choices(((-5, 0), (0, 3), (3, 24), (24, 72), (72, 690)), weights=(10, 20, 30, 22, 18))[0]
    return timedelta(minutes=15 * dice.randrange(low * 4, high * 4))


def near(latitude: float, longitude: float, dice: random.Random) -> list[float]:
    """A place some hundred metres to a few kilometres from the centre; [longitude, latitude]."""
    km, bearing = min(dice.lognormvariate(0.3, 0.8), 8.0), dice.uniform(0, 2 * math.pi)
    east = km * math.sin(bearing) / (KM_A_DEGREE * math.cos(math.radians(latitude)))
    return [round(longitude + east, 5), round(latitude + km * math.cos(bearing) / KM_A_DEGREE, 5)]


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")


if __name__ == "__main__":
    sys.exit(main())
