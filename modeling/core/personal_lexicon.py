"""People's names as Faker's lists have them, and words that are names and something else; read when first used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

_LATIN = (
    "en_US", "en_GB", "en_IN", "en_IE", "en_NZ", "en_PK", "en_NG", "en_KE", "de_DE", "de_AT", "de_CH", "fr_FR", "fr_BE",
    "fr_CA", "es_ES", "es_MX", "es_AR", "es_CO", "it_IT", "nl_NL", "nl_BE", "pt_BR", "pt_PT", "pl_PL", "sv_SE",
    "da_DK", "no_NO",
    "fi_FI", "is_IS", "cs_CZ", "sk_SK", "sl_SI", "tr_TR", "hr_HR", "ro_RO", "hu_HU", "lt_LT", "lv_LV", "et_EE",
    "az_AZ", "uz_UZ",
    "ga_IE", "tw_GH", "yo_NG", "ig_NG", "ha_NG", "zu_ZA", "sw", "id_ID", "en_TH",
)  # fmt: skip
_PINYIN = """
    Wang Li Zhang Liu Chen Yang Huang Zhao Wu Zhou Xu Sun Ma Zhu Hu Guo He Lin Gao Luo Zheng Liang Xie Song Tang
    Deng Feng Han Cao Zeng Peng Xiao Cai Pan Tian Dong Yuan Jiang Yu Du Ye Cheng Wei Su Lu Ding Ren Shen Yao Jin
    Cui Tan Liao Fan Wong Chan Cheung Leung Lam Ng Ho Kwok Chow Nguyen Tran Pham Kim Park Choi
"""
_SHORT = """
    Will Bill Bob Tom Jim Mike Nick Dan Ben Sam Joe Matt Chris Kate Liz Beth Meg Sue Ann Anne Tony Andy Steve
    Dave Pete Rob Ron Ray Greg Jeff Ken Len Ted Ned Fred Max Alex Pat Pam Jan Jo Jen Jess Abby Maggie Annie
    Katie Ellie Gabby Becky Debbie Vicky Nikki Ollie Archie Freddie Alfie Charlie Harry Jamie Aisha Fatima
    Mohammed Muhammad Ahmed Ali Omar Yusuf Hassan Priya Rahul Amit Sanjay Wei Ming Xiaoming Kwame Jordan Dmitri
    Vikram Zainab Olumide Kofi Ama Chidi Ngozi Emeka Oluwaseun Thandiwe Sipho Yuki Hiroshi Kenji
"""  # that the lists of given names leave out
# Names that are words, months, places, plants, brands or things, too: alone they are nobody's.
_BOTH = """
    Abbott Abilene Able Ace Addison Aden Adidas Alexa Alexandria Alma Amber Amherst An Angel Angelina Angle
    Apple April Archer Aria Art Ash Ashley Asia Aspen Aston Aurora Austin Autumn Ava Bailey Baker Bandage Banks
    Barber Baron Barrett Bath Bay Beach Beau Bell Berlin Best Beverly Bill Bird Bishop Black Blake Bliss Blue
    Bond Boston Bowie Bowman Boxer Brad Bradley Branch Brandy Breeze Brick Bridge Brook Brooklyn Brown Buck Bud
    Burger Burke Bush Butcher Butler Cadence Camden Candy Car Caribbean Carol Carolina Carpenter Carter Case
    Cash Castle Celeste Chance Chandler Charity Charlotte Chase Chelsea Cherry Chester Chip Christian Church
    Citizen City Claire Clay Clementine Clever Cliff Clinton Coby Cody Cole Colon Colt Columbia Constance Conway
    Cook Cooper Coral Corona Crystal Cruz Cuba Daily Daisy Dakota Dale Dallas Dan Dane Dawn Day Dean Deacon
    Delta Denver Devin Diamond Dick Dior Dirk Dolly Don Dorian Dot Drake Drew Duke Dusty Dwell Early Earl East
    Easter Eden Ember Emery Emirates Emory Ernest Essence Ever Fable Faith Falcon Fallon Fay Fern Field Fields
    Fine Finch Finn Fisher Flint Flora Florence Florida Ford Forest Forrest Foster Fox France Francia Frank Free
    French Fresh Friday Frost Gale Garden Garland Garnet Gay Gem Gene General Genesis Genoa Georgia German
    Germany Ginger Glen Gloria Gold Golden Good Grace Gray Grant Graves Green Grey Guy Gypsy Hale Hall Hand
    Harbor Hardy Harley Harmony Harper Harry Hart Haven Hawk Hazel Head Heart Heath Heather Heaven Hill Holiday
    Holland Holly Home Hope Horn House Hunt Hunter Huntington Ida Ill Ina India Indigo Iona Iris Iron Isis
    Israel Ivory Ivy Jack Jade Jae Jan Jasmine Jasper Java Jay Jean Jersey Jet Jewel Job Joey Jones Jordan
    Journey Joy Judge June Juniper Justice Kay Kelvin Kennedy Kent Kenya Kidd King Kit Knight Lake Lance Land
    Lane Lark Laurel Lavender Law Lea Lee Legend Leo Liberty Light Lilac Lily Lima Lincoln London Long Loop Lord
    Love Low Lucky Lupe Lupus Lyme Lynx Lyric Mac Mace Madison Magic Magnolia Main Major Malt Manchester Manual
    March Mark Market Marina Mars Marsh Marshall Martini Mason Mast Master Max Maxi May Mayo Mead Meadow Media
    Medina Melody Memory Mercedes Mercy Merit Mesa Mia Mica Midway Mike Milan Miles Mill Miller Mills Mini Misty
    Modest Moe Mona Montana Moon Moore Morgan Morrow Moss Mountain Myrtle Nada Nature Nevada Nick Nike Noble
    Noel Noon Norm North Norway Nova Oak Ocean Octavia Olive Oliver Opal Orchard Orion Orlando Otter Owl Pace
    Page Paige Paisley Pale Palm Pan Pansy Papa Paris Parish Park Parker Parks Pat Patience Pearl Pearson Peg
    Penny Pepper Percy Perry Pet Petal Petunia Phoenix Pierce Pike Pine Piper Pit Pitt Plum Poe Pole Pool Poppy
    Porsche Porter Posey Post Potter Pound Power Precious Presley Price Prima Prince Princess Princeton Prudence
    Puma Queen Quest Quick Quince Rain Rainbow Ram Ramp Randy Raven Ray Read Reagan Reality Red Reed Reese Reid
    Reign Remedy Remy Rent Rex Rich Ridge Rio River Rivers Rob Robin Robot Rock Rocky Roman Rome Rose Rosemary
    Rosy Rowan Royal Ruby Ruler Rush Russia Rusty Rye Sadie Sage Sails Saint Salem Salt Sand Sandy Santa
    Sapphire Savannah Scarlet Scarlett Scot Scott Sea Sean September Sequoia Serena Serenity Shade Sharp Shawn
    Shea Shell Shepherd Shore Short Sierra Silver Simple Singer Sinus Skip Sky Skye Sky Smith Snow Solo Son Song
    Sonny Sparrow Spencer Spring Stacy Staff Stanley Star Sterling Stella Stone Storm Story Street Sue Sugar
    Summer Sun Sunday Sunny Sutton Sweet Sydney Sylvan Tab Talent Tan Tanner Taylor Teal Tennessee Terra Terry
    Tesla Texas Thai Theme Thorn Tia Tiger Tim Toby Tommy Tony Topaz Town Trace Tracer Tracy Trail Travis
    Treasure Trinity Tripp True Truly Tulip Turner Ty Tyre Union Unique Unity Urban Val Valencia Valentina Vale
    Van Venice Vera Verde Vernon Verona Vesper Victor Victoria Victory Vienna Viola Violet Virginia Vista Walker
    Wall Walton Warren Washington Waters Way Webb Weber Wells West Wheeler Whisper White Will Willow Wilson Win
    Wind Windsor Winter Wolf Wong Wood Woods Woody Wren Wright Yale York Young Zest Zion Zinc Bitten Bent Nail
    Constant Beta Tiffany Jordan Chad Aide Alba Alta Amen Anal Area Arie Aspirin Atlas Axel Axis Baby Bari Base
    Basin Be Bea Bee Berry Bin Bing Bob Bruce Cam Cannon Cap Care Carey Cave Chad Chi China Cord Costa Crane
    Curt Da Dee Den Des Desire Dia Din Dong Dove Ed Eli Era Eve Far Fashion Fiona Fleming Foley Gap Gore Gray Ha
    Hay Ham Hanna Her Hi His Honey Hop Hunger In Info Islam Kai Key Kim Koch La Labor Lacy Lam Lan Le Leaf Lei
    Less Levi Lex Li Lin Lo Loan Logan Lotus Lou Lu Lung Ma Man Many Mai Mar Marie Mei Mee Merle Mi Min Mo More
    Nan New Ni Nil No Not Obey Oh Old Only Or Oral Otis Pablo Paddy Paget Per Phil Pilar Pia Rae Rag Raja Ravi
    Reach Rees Rene Rib Rica Rod Roll Sam Samba San Se See Senior Set She Shin Shu Si Sid So Sol Sofia Son Soo
    Spain Stand Su Sung Ta Tai Tea Ten Tess The Tin To Tod Tom Tu Tung Um Una Us Van Vi Via Viet Wan War Was We
    Wee Win Wit Xi Yes Yi Yong You Yu Ze Zone Down Turkey Jamaica Chile Aaliyah Cuban Roma Nice Nancy Bonn Essen
    Halle Hagen Worms Ulm Siena Modena Pavia Parma Padua Split Lund Bergen Moss Prada Gucci Chanel Lauren Klein
    Boss Hermes Armani Fila Vans Philips Siemens Bosch Braun Miele Dyson Ferrari Jaguar Lotus Lexus Infiniti
    Mazda Audi Opel Skoda Dacia Kia Shein Zara Mango Visa Monzo Chase Barclays Lloyds Wells Fargo Stanley Sachs
    Goldman Santander Revolut Klarna Avon Dove Nivea Olay Vichy Aveda Rolex Cartier Casio Seiko Swatch Fossil
    Guess Diesel Lacoste Dell Lenovo Acer Asus Sony Canon Nikon Kodak Bose Alexa Siri Cortana Google Amazon
    Adobe Oracle Levis Wrangler Timberland Columbia Patagonia Salomon Merrell Clarks Ecco Crocs Birkenstock
    Nestle Heinz Kellogg Mars Wrigley Cadbury Lindt Milka Ferrero Nutella Barilla
"""
_COMMON = """
    The This That These Those There Then They He She It We You I My Your Our His Her Its Their A An And But Or
    If When While After Before Since Until Because Although For From With Without At By In On Of To Off Out Over
    Under Up Down Not No Yes Please Thanks Thank Hello Hi Hey Dear Sir Madam Good Morning Afternoon Evening
    Regards Sincerely Best Kind What Where Who Why How Which Can Could Should Would May Might Must Shall Will Do
    Does Did Is Are Was Were Be Been Has Have Had Also Only Just Still Again Once Now Today Tomorrow Yesterday
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August
    September October November December Patient Customer Client Doctor Nurse Ward Room Clinic Hospital Bank Card
    Account Order Invoice Refund Ticket Case Note Notes Plan History Allergies Medication Diagnosis Assessment
    Discharge Admission Referral Result Results Left Right Upper Lower Acute Chronic Type Stage Grade Level Day
    Days Week Weeks Month Months Year Years First Second Third Last Next New Old Male Female Man Woman Street
    Road Avenue Lane Drive Way Court Place Square Park House Hall Bridge Church School University College
    Department Office Centre Center Street St Rd Ave Company Group Limited Ltd Inc Corp Corporation Gmbh Plc Llc
    Co Sons Brothers Phone Mobile Email Address Name Date Time Number Id Ref Subject Message Re Fwd Cc Attn Team
    Support Service Services Delivery Shipping Payment Transfer Loan Mortgage Credit Debit Savings Checking
    Direct Standing Online Branch Manager Disease Syndrome English French German Spanish Chinese Italian
    American British European Indian African Christmas Easter Asked Called Seen Said Given Started Stopped
    Reports Reported Denies Continue Review Follow Check Send Call Size Colour Color Black White Blue Red Green
    Grey Brown Pink Purple Yellow Orange Large Small Medium Sample Reviewed Book Two Three Four Five Six Seven
    Eight Nine Ten One All Some Many Most None Every Each Any Both Bought Ordered Received Returned Sold Paid
    Booked Spoke Met Told Examined Referred Signed Mother Father Wife Husband Sister Brother Daughter Son Parent
    Carer Guardian Friend Neighbour Colleague Boss Staff Member Owner Holder Borrower
"""
_AFTER_THINGS = """
    disease diseases syndrome syndromes lymphoma palsy sign signs test tests score scale criteria catheter
    maneuver manoeuvre procedure operation fracture fractures sarcoma tumor tumour anemia anaemia esophagus
    oesophagus contracture cyst phenomenon thyroiditis ulcer ulcers nodes node reaction index method stain
    medium bank bay beach boutique bros brothers building burger castle cathedral centre center church circle
    city clinic close club coffee collection college company corp corporation county court creek crescent dam
    drive edition estate farm field fields foods forest foundation gardens gate gmbh group hall harbor harbour
    heights hill hills hospital hotel house inc industries infirmary institute insurance island islands isle
    junction lake lane library limited llc lodge ltd mall manor market mart memorial mews mill motors mount
    museum nursery oil parish park parkway partners pharmacy place plaza plc point pub railway ranch restaurant
    ridge river road rd row school sons springs square st station store stores street surgery systems
    technologies terrace theatre town tower towers trail trust university valley view village walk way wharf
    wood woods works syndrom krankheit straße strasse platz weg jeans perfume cream shampoo sneakers shoes bag
    watch island disorder type virus fever infection bacillus muscle canal duct gland tube body bodies cell
    cells lobe loop reflex avenue ave boulevard blvd ct dr ln hwy ward wing unit department health healthcare
    medical
"""  # what stands behind a name makes it a thing's


@dataclass(frozen=True)
class Lexicon:
    """Latin first and last names, those of both that are other words too, and words behind which no person is meant."""

    first: frozenset[str]
    last: frozenset[str]
    doubtful: frozenset[str]
    common: frozenset[str]
    things: frozenset[str]


@cache
def latin() -> Lexicon:
    """Some 15,000 names of Latin script; a tenth of a second when first asked for."""
    first = {*_of(_LATIN, "first_name"), *_SHORT.split()}
    last = {*_of(_LATIN, "last_name"), *_PINYIN.split()}
    words = import_module("faker.providers.lorem.en_US").Provider.word_list
    both = frozenset(_BOTH.split())
    countries = import_module("faker.providers.address.en").Provider.countries
    common = {*_COMMON.split(), *(str(word).title() for word in words), *map(str, countries)}
    common -= both & (first | last)
    return Lexicon(
        frozenset(first - common),
        frozenset(last - common),
        both,
        frozenset(common),
        frozenset(_AFTER_THINGS.split()),
    )


def is_loaded() -> bool:
    """Whether the lists were read already."""
    return latin.cache_info().currsize > 0


@cache
def chinese() -> tuple[frozenset[str], frozenset[str]]:
    """(surnames of one or two characters, characters of given names)."""
    locales = ("zh_CN", "zh_TW")
    surnames = {*_of(locales, "last_name"), *_MORE_SURNAMES}
    given = {sign for name in _of(locales, "first_name") for sign in name}
    return frozenset(surnames), frozenset(given | set(_MORE_GIVEN))


_MORE_SURNAMES = (
    "欧阳",
    "司马",
    "上官",
    "诸葛",
    "夏侯",
    "皇甫",
    "尉迟",
    "公孙",
    "慕容",
    "令狐",
    "司徒",
    "东方",
    "端木",
)
_MORE_GIVEN = (
    "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂国建华志文斌辉玲红梅海燕春雪峰鹏飞宇浩然子涵梓轩一诺欣怡雨桐诗琪晨曦思"
    "佳俊凯瑞嘉豪博睿泽洋天佑宁宏伟振东立新永康德福荣贵宝金玉珍淑惠慧美琴凤莲翠萍晓小颖婷婉清雅琳莹洁倩蕾薇若冰心悦妍可馨"
    "润承安家乐启航星辰皓翔昊煜祺奕彤昕萱语萌柔钰茜岚澜锋钢铁民生根发旺财庆祥吉顺义仁信忠孝良才学武斯正光远达鑫森林"
    "江河川山石松柏竹菊荷苗禾田亮晶月阳云龙虎鹤鸿雁燕翼君元卫权胜利进步跃栋桐思远敏墨琳周凡沐橙景琰骏若曦德娟博佳怡俊玉婉婷永家辉雅"
    "郑凯春梅冰洁建海波雪莹程立淑芬浩宇超群静哲嘉禾庆红布俊义欣依涵山鸣羡琴修锡衫如葛帆蓉洁翔丹敏爽欢朗灵妍妮娅珊珠琪瑶瑾璐璇玥彦"
    "彤彬炜炎烨焕煦熙熠炳烁灿焱坤坚培墨壮夏夕妙姗姝娇娴媛媚孟季学宗宜宸宣宽寅寒寿岩岭岳峻崇巍帅幼广廷弘弛彪征徽恒恩悠情惟惜意愉"
    "懿成战扬拓振捷敬斐旭昂昌昭晋晏晖晗晟普智暖朋望杉杏杭极果枝枫柯柳柱栩桃桑梁棋榕槐樱欧歆殊毅汉汐沁沛沫泉泓波津洪流浦浪涌涓"
    "润淇淳深渊渝温游湘源溪滔滢漫潇澄濛瀚炫照熹牧珂珩琦琛琨琰瑜瑛璟甜生畅白百皎盈益真知硕碧祖祯禄离秋程稳穆童端笑笛筠简箫纯纶纹绍"
    "经维绮缘羽翊翎翰耀聪育胤舒舟芊芙芝芮花芸苑苓苒英茂茉茗荟荣莎莓莘莫菁菡萌萧葵蒙蓓蓝蔓蔚薏藜蕊蕴虹蝶衡裕西言记诚语谦谨豫贞贤赞"
    "赫超越跃路轶辰运迎迪逸道邦郁邵采重野铁铃铎铭锐锦镇长闻阔陆雄霆霄霖露青靖韵韬颂颖风骄驰骁高魁鲁鲲鸥麒麟麦黎默齐"
)


def _of(locales: Iterable[str], what: str) -> Iterator[str]:
    """Every name of the providers' lists of this kind; names of two words are left out, and very short ones."""
    for locale in locales:
        provider: Any = import_module(f"faker.providers.person.{locale}").Provider
        for field in dir(provider):
            listed = getattr(provider, field)
            if field.startswith(what) and isinstance(listed, dict | tuple | list | set):
                yield from (name for name in listed if isinstance(name, str) and _is_fit(name))


def _is_fit(name: str) -> bool:
    return " " not in name and "." not in name and (len(name) > 2 or not name.isascii())
