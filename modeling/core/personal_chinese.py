"""Personal data as Chinese texts write it: births, records, accounts, addresses; named accounts elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

Spans = Iterator[tuple[int, int]]

_DATE = r"(?:\d{4} ?[-/.年] ?\d{1,2} ?[-/.月] ?\d{1,2} ?[日号]?|(?:19|20)\d{6}|\d{2}年\d{1,2}月\d{1,2}[日号])(?!\d)"
_BORN = re.compile(
    rf"(?:出生(?:日期|年月日|年月|时间|于)?|生于|生日|生年月日)[为是于在:：\s]{{0,3}}({_DATE})"
)
_BORN_AFTER = re.compile(rf"(?<!\d)({_DATE})(?:出生|生(?![效产成活命]))")
_RECORD = re.compile(
    r"(?:病历|病案|住院|门诊|就诊卡?|急诊|登记|检查|化验|标本|医保卡?|社保卡?|医疗证|病人|患者|参保|保单|会员卡?)"
    r"(?:号码?|编号|ID|id)[为是:：\s#]{0,3}([A-Za-z]{0,4}-?\d[\dA-Za-z-]{3,17})(?![A-Za-z0-9])"
)
_ACCOUNT = re.compile(
    r"(?:(?:银行)?(?:账|帐)(?:号|户)(?:号码)?|卡号|银行卡号?|储蓄卡号?|信用卡号|一卡通号?"
    r"|存折号?)[为是:：\s]{0,3}(\d(?:[ -]?\d){7,22})(?!\d)"
)
_ACCOUNT_NAMED = re.compile(
    r"\b(?:(?:bank |checking |savings |current |loan )?(?:account|acct|a/c)(?:[ _.-]?(?:number|no|num|nr"
    r"|#))?\.?|sort code|routing"
    r"(?: number| no\.?)?|kontonummer|konto(?:-?nr)?\.?|numéro de compte|número de cuenta|iban)"
    r"(?: (?:is|was|ending(?: in)?))?[ :#=]{1,3}(\d(?:[ -]?\d){5,19})(?![\w-])",
    re.IGNORECASE,
)
_ACCOUNT_WORDS = ("acc", "a/c", "sort code", "rout", "konto", "compte", "cuenta", "iban")
_HAN = r"[\u4e00-\u9fff]"
_STREET = re.compile(
    r"(?:路|街|大道|巷|弄|胡同|小区|村|里|园|苑|城|道|花园|公寓|家园|新村|大厦)(?:[东西南北中]|[一二三四五六七八九十]{1,2}|[东西南北一二三四五六七八九十]{0,2}[段区期])?"
    r" ?\d{1,5}(?:-\d{1,4})?(?:号|弄|栋|幢|座|组|楼|#)"
    rf"(?:院|楼)?(?:{_HAN}{{0,8}}?\d{{1,4}}(?:号楼|号|栋|幢|座|单元|室|楼|层|户|门))*(?:\d{{1,4}})?"
)
_LEFT = re.compile(rf"{_HAN}{{1,26}}\Z")
_START = re.compile(
    r"(?:住址|地址|家住|现住|住在|居住在|住于|寄到|寄至|送到|送至|送往|送货到|位于|户籍|籍贯|来自|搬到|搬至|配送至|配送到|发到|发往|邮寄到|住|在|为|是|到|至|于|改成|改为)"
)
_PLACE = re.compile(
    rf"(?:北京|上海|天津|重庆|香港|{_HAN}{{2,3}}省|{_HAN}{{2,3}}市|内蒙古|新疆|西藏|宁夏|广西|{_HAN}{{2,3}}[区县])"
)


def births(text: str) -> Spans:
    """Dates that are called a birth's."""
    found = [one.span(1) for pattern in (_BORN, _BORN_AFTER) for one in pattern.finditer(text)]
    yield from sorted(found)


def record_numbers(text: str) -> Spans:
    """Numbers that are called a medical record's, a stay's, an insurance's or a member's."""
    for found in _RECORD.finditer(text):
        yield found.span(1)


def accounts(text: str) -> Spans:
    """Numbers that are called an account's, in Chinese and in Latin script."""
    small = text.lower()
    is_named = any(word in small for word in _ACCOUNT_WORDS)
    found = [one.span(1) for one in _ACCOUNT_NAMED.finditer(text)] if is_named else []
    if not text.isascii():
        found += [one.span(1) for one in _ACCOUNT.finditer(text)]
    yield from sorted(found)


def addresses(text: str) -> Spans:
    """A street or estate with a number, from the province or town in front of it to the door behind."""
    done = 0
    for found in _STREET.finditer(text):
        if found.start() < done:
            continue
        left = _LEFT.search(text[max(done, found.start() - 26) : found.start()])
        if left is None:
            continue
        done = found.end()
        yield found.start() - len(_named_part(left[0])), found.end()


def _named_part(left: str) -> str:
    """What of the characters in front of a street belongs to the address."""
    if (place := _PLACE.search(left)) is not None:
        named = left[place.start() :]
        while (found := _START.match(named)) is not None:
            named = named[found.end() :]
        return named
    cut = 0
    for found in _START.finditer(left):
        cut = found.end()
    rest = left[cut:]
    return rest if rest and cut else left[-4:]
