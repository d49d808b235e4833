"""Sentences, names and harmless texts written last: no rule was made or changed for them, so recall is as on new texts."""

# ruff: noqa: E501, SIM905 - sentences and names, one after another

from __future__ import annotations

EN_FIRST = """
    Rosalind Emeka Johanna Pavlos Minh Shanice Ezequiel Agnieszka Harpreet Lorenzo Ngaire Timothy Yasmin Bjorn
    Celestine Dilip Esperanza Francois Gulnara Hector Imogen Jarek Katarzyna Lamar Marjorie Hope Rob Sky Bella Max
""".split()
EN_LAST = """
    Abernethy Bhattacharya Cavendish Dlamini Eriksen Fontaine Grabowski Haverford Ishikawa Jankowski Kipchoge
    Lachapelle Mukherjee Niemeyer Osborne Pietersen Rasmussen Shevchenko Thornbury Ugarte Vasquez Whitmore Yilmaz
    Zapata Lee White Bell Wood Hill King
""".split()
ZH_NAMES = """
    蒋慧 卓文君 祁同伟 高育良 沙瑞金 简佳 辛弃疾 舒畅 尤勇智 覃海洋 武大靖 苗圃 关晓彤 鲍春来 项楠 池子涵 娄艺潇 盛夏 关山月 潘粤明 王彤 李诗雨 张梓豪 刘子墨 陈浩南 杨紫琼 赵丽颖 黄晓明 周冬雨
    吴磊 欧阳修远 司马懿 令狐冲 慕容雪
""".split()

EN = {
    "clinic": [
        "Handover: {name} in bay three is stable.", "{name} cancelled the appointment on {date}.",
        "I examined {name} this afternoon.", "Letter dictated for {name}.",
        "Patient's son {first} will drive her home.", "Dr. {last} is on leave until {date}.",
        "Allergic reaction reported by {name}.", "Dear Dr {last}, thank you for seeing {name}.",
    ],
    "bank": [
        "Hello, {name} speaking, my app is locked.", "The beneficiary should be {name}.",
        "{name} asked to close account {account}.", "Payment from {name} bounced on {date}.",
        "I live with {name} and we pay rent together.", "Kind regards, {first} {last}", "My name's {name}.",
        "Ms {last} would like to raise the limit.",
    ],
    "shop": [
        "Parcel for {name} was left in the rain.", "{first} loves the mug.", "Order 8812: {name}, {address}.",
        "Sold to {name} last week.", "Can {name} pick it up?", "Please refund {name} before {date}.",
        "Delivery person {first} was kind.", "From {name}: great lamp.",
    ],
}  # fmt: skip
ZH = {
    "clinic": [
        "{name}的化验单出来了。", "已告知{name}手术风险。", "{name}于{date}办理出院。", "床位5：{name}", "主刀{name}，助手{name}。",
        "患儿{name}由母亲抱入诊室。", "{name}主任查房后调整用药。", "病人{name}拒绝输血。",
    ],
    "bank": [
        "请问{name}在吗？", "{name}的账户{account}被冻结。", "{last}先生咨询理财。", "收到{name}汇来的五千元。", "联名持有人：{name}、{name}",
        "我叫{name}，手机{phone}。", "借款人{name}已逾期。", "{name}签字确认。",
    ],
    "shop": [
        "{name}退货成功。", "收件人：{name}", "谢谢{name}的耐心解答。", "给{name}补发一件。", "{name}昨天下的单。", "买家{name}要求发票。",
        "快递员{name}很负责。", "{name}，{phone}，{address}",
    ],
}  # fmt: skip
_EN_CLEAN = [
    "Dose of Entresto doubled.", "Brudzinski sign absent.", "Ringer lactate, one litre.",
    "Hashimoto thyroiditis known.", "Kernig sign negative.", "Cushing syndrome excluded.",
    "St. Thomas Hospital, theatre two.", "Swab grew Staphylococcus aureus.", "Mild Cognitive Impairment clinic.",
    "Norton scale 14.", "Revolut top-up failed.", "Deutsche Bank fee.", "Western Union counter.",
    "Klarna instalment due.", "Direct Line premium.", "Tax Return for April.", "Bond yields fell in Tokyo.",
    "Gold at a record on Monday.", "Ocean View branch.", "Market Street ATM.", "Bosch drill is loud.",
    "Ray-Ban sunglasses, black.", "Jo Malone candle.", "Doc Martens laces.", "Paul Smith socks.",
    "Alice in Wonderland mug.", "Chicken Tikka Masala kit.", "Fair Isle jumper.", "Cashmere Blend scarf.",
    "Persil Non Bio.",
]  # fmt: skip
_ZH_CLEAN = [
    "伤口愈合良好。", "支原体阳性。", "曲安奈德局部注射。", "温盐水漱口。", "石蜡油通便。", "苏打水送服。", "麻黄汤加减。", "肖像权声明。", "季度报表。", "盛大开业。", "解冻账户。",
    "应付利息。", "符合条件。", "管理费过高。", "齐全的材料。", "乐高积木缺件。", "罗技鼠标失灵。", "施华洛世奇项链。", "沙发坐垫塌了。", "谷物早餐。", "田园风窗帘。", "米色外套。",
    "林中小屋香薰。", "高压锅漏气。", "童装尺码偏小。", "汤碗碎了。", "农夫山泉一箱。", "金龙鱼油。", "海尔冰箱。", "祝您生活愉快。",
]  # fmt: skip
CLEAN = {"en": _EN_CLEAN, "zh": _ZH_CLEAN}
