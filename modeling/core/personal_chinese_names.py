"""People's names in Chinese text: surname and given name by their characters, rjieba's words and what stands beside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from modeling.core.personal_lexicon import chinese

Spans = Iterator[tuple[int, int]]

_HAN = re.compile(r"[\u4e00-\u9fff]")
# Never a whole run, which may be long.
_FIRST_TWO = re.compile(r"[\u4e00-\u9fff](?:[\u4e00-\u9fff]|·(?=[\u4e00-\u9fff]))?")
_TITLE = re.compile(
    r"先生|女士|小姐|太太|夫人|医生|大夫|医师|主任|护士|护师|教授|老师|经理|师傅|阿姨|叔叔|大爷|大妈|奶奶|爷爷|同学|律师|总(?![^，。\s])"
)
_CUE = re.compile(
    r"(?:姓名|患者|病人|患儿|产妇|客户|顾客|用户|会员|买家|联系人|收件人|收货人|寄件人|持卡人|户名|户主|开户人|收款人|付款人|汇款人|家属"
    r"|家长|母亲|父亲|妻子|丈夫|儿子|女儿|配偶|监护人|我叫|我是|名叫|医生|医师|大夫|护士|主任|经理|客服|店员|店长|申请人|担保人|借款人"
    r"|投保人|被保险人|受益人|经办人|签名|签字|签收人|陪同人|转给|收款方|对方|老师|同事|邻居|朋友|代办人|委托人)(?:姓名|为|是|叫|系)?[:：\s]{0,2}\Z"
)
_COUNTED = frozenset("0123456789一二两三四五六七八九十几每这那多半整")  # 一张新卡: here 张 counts sheets
_NEVER = frozenset(
    ["李宁", "银行卡", "谢谢您", "谢谢你", "古驰", "车厘子", "王府井", "张家口", "安静", "高兴", "马克", "安康",
    "高峰", "文明", "安宁", "康复", "平安", "和平", "成都", "常德", "高雄", "石家庄", "安德玛",
     "王者荣耀", "万达", "元宵", "方正", "金龙鱼", "金华", "安吉", "明天", "时光", "温馨", "白云", "白金",
     "白银", "黄金", "金山", "金星", "华为", "白云山", "雷雨", "唐山", "高血压"]
)  # fmt: skip
_NO_GIVEN = frozenset(
    ("m", "t", "p", "c", "d", "r", "u", "f", "q", "uj", "ul", "v", "vn", "zg", "y", "e", "o", "i", "l")
)  # tags of words no one is called
_OF_NAMES = ("nr", "nrt", "nrfg", "x")
_ENDS = frozenset(
    "说于和是在的了与被把将因为对给从到已未来去有没不要想也都就还又再收买问诉称及或等曰向按经由让请可能会应须仍今昨日前后同"
)
_OF_THINGS = frozenset(
    "性症炎病药剂素膜酶肉菜茶果酒粉品裙裤鞋袋机店行院局所白元吉祥纸布油糖盐饼面"
)  # end words of things
_PARTICLES = frozenset("由请找给与和向对让叫把被的是经及为到同跟随问")
_NEAR = 12


class _Word(NamedTuple):
    """One word as segmented, where it starts, and its part of speech."""

    text: str
    start: int
    tag: str


@cache
def _library() -> Any:
    return import_module("rjieba")


def chinese_names(text: str) -> Spans:
    """Surname with one or two characters behind it, or with a form of address (then the surname alone)."""
    if _HAN.search(text) is None:
        return
    surnames, given = chinese()
    words = _words(text)
    done = 0
    for at, word in enumerate(words):
        if word.start < done or _HAN.match(word.text) is None:
            continue
        end = _end(text, words, at, surnames, given)
        if end:
            done = end
            yield word.start, end
    yield from _before_titles(text, surnames, given)
    yield from _standing_free(text, surnames, given)


def _before_titles(text: str, surnames: frozenset[str], given: frozenset[str]) -> Spans:
    """由张医生开具: what the words were cut through, where a particle or nothing stands before the surname."""
    for title in _TITLE.finditer(text):
        for length in (2, 1, 0):
            start = title.start() - length - 1
            before = text[start - 1 : start]
            if (
                start < 0
                or text[start] not in surnames
                or not all(sign in given for sign in text[start + 1 : title.start()])
            ):
                continue
            if not before or before in _PARTICLES or _HAN.match(before) is None:
                yield start, title.start()
                break


@cache
def _free() -> re.Pattern[str]:
    surnames, given = chinese()
    double = "|".join(sorted(one for one in surnames if len(one) == 2))
    single = "".join(sorted(one for one in surnames if len(one) == 1))
    signs = "".join(sorted(given - _ENDS))
    return re.compile(
        rf"(?:(?<![\u4e00-\u9fff\d])|(?<=[由与找给请和对向致叫])|(?<=姓名)|(?<=客户)|(?<=患者))((?:{double}|[{single}])[{signs}]{{1,2}})"
        r"(?=[因来于的说评表今昨申购下已在将与和及开行支家女男先收付办态跟]|[^\u4e00-\u9fff]|\Z)"
    )


def _standing_free(text: str, surnames: frozenset[str], given: frozenset[str]) -> Spans:
    """Characters of a name between signs, particles and verbs, however the words were cut, where no other word is."""
    for found in _free().finditer(text):
        if found[1] in _NEVER:
            continue
        words = _library().tag(found[1])
        is_word = len(words) == 1 and words[0][1] not in _OF_NAMES
        if not is_word and (len(found[1]) > 2 or words[0][1] in _OF_NAMES):
            yield found.span(1)


def _words(text: str) -> list[_Word]:
    """The text's words with their places; a word that ends in a form of address is cut before it."""
    found, at = [], 0
    for written, tag in _library().tag(text):
        found.append(_Word(written, at, tag))
        at += len(written)
    return found


def _end(text: str, words: Sequence[_Word], at: int, surnames: frozenset[str], given: frozenset[str]) -> int:
    """Where the name that starts with this word ends; 0 when none does."""
    word = words[at]
    double = text[word.start : word.start + 2]
    size = 2 if len(double) == 2 and double in surnames else 1
    if text[word.start : word.start + size] not in surnames:
        return 0
    before = text[max(0, word.start - _NEAR) : word.start]
    if before and before[-1] in _COUNTED:
        return 0
    titled = _titled(text, word.start + size, given)
    if titled and (len(word.text) <= size or word.tag in _OF_NAMES):
        return titled
    length = _given_length(text, words, at, size, given)
    if not length or word.text in _NEVER or text[word.start : word.start + size + length] in _NEVER:
        return 0
    is_word = len(word.text) > size and word.tag not in _OF_NAMES
    if _CUE.search(before) and (not is_word or all(sign in given for sign in word.text[size:])):
        return word.start + size + length
    return word.start + size + length if _reads_as_name(words, at, size, length, given) else 0


def _titled(text: str, start: int, given: frozenset[str]) -> int:
    """Where a name that a form of address follows ends: 王医生, 王建国先生; 0 when none follows."""
    for length in (0, 1, 2):
        part = text[start : start + length]
        if all(sign in given for sign in part) and _TITLE.match(text, start + length):
            return start + length
    return 0


def _given_length(text: str, words: Sequence[_Word], at: int, size: int, given: frozenset[str]) -> int:
    """How many characters behind the surname are the given name: 0, 1 or 2."""
    word = words[at]
    start = word.start + size
    run = _FIRST_TWO.match(text, start)
    if run is None:
        return 0
    follows = run[0]
    if follows[0] in _ENDS:
        return 0
    if size == 2 and len(word.text) == 2:
        return 2 if len(follows) == 2 and follows[1] in given and follows[1] not in _ENDS else 1
    if len(word.text) > size:  # the name is one word
        inside = len(word.text) - size
        if inside == 1 and len(follows) == 2 and follows[1] in given and follows[1] not in _ENDS:
            behind = words[at + 1] if at + 1 < len(words) else None
            if behind is not None and (len(behind.text) == 1 or behind.tag == "x" or behind.text[1] in _ENDS):
                return 2
        return 1 if inside == 1 or follows[1] in _ENDS else 2
    if at + 1 >= len(words):
        return 0
    behind = words[at + 1]
    if len(behind.text) >= 2:
        return 2 if len(behind.text) == 2 else 0
    third = words[at + 2] if at + 2 < len(words) else None
    is_two = third is not None and len(third.text) == 1 and third.text in given
    return 2 if is_two and len(follows) == 2 else 1


def _reads_as_name(words: Sequence[_Word], at: int, size: int, length: int, given: frozenset[str]) -> bool:
    """Without a word beside it that says so: by its characters and what its words are otherwise."""
    word = words[at]
    rest = "".join(one.text for one in words[at : at + 3])[size : size + length]
    if len(word.text) > size:
        return word.tag in _OF_NAMES and rest[-1] not in _OF_THINGS and (length == 2 or rest in given)
    if size == 2:
        return True
    if not all(sign in given for sign in rest):
        return False
    behind = words[at + 1]
    if len(behind.text) == 1:
        return length == 2
    return behind.tag not in _NO_GIVEN
