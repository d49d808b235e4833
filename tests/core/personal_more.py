"""More sentences, names and harmless texts, kept apart at first: recall of names on them was .85 (en) and .80 (zh) before."""

# ruff: noqa: E501, SIM905 - sentences and names, one after another

from __future__ import annotations

EN_FIRST = """
    Margaret Declan Ananya Tobias Chiamaka Leopold Saoirse Hiroto Beatriz Cornelius Farida Gustavo Henrike Ismael Juliette Kwabena
    Lavinia Mehmet Noor Ottilie Pascale Rasheed Solveig Tomasz Uche Valeria Winifred Yevgenia Zachary Abdulrahman Brigitte Caoimhe
    Faith April Chase Dawn Drew Frank Joy Penny
""".split()
EN_LAST = """
    Holloway Achebe Blenkinsop Castellanos Drummond Etxeberria Fitzwilliam Goldsworthy Hendricks Inoue Jacquard Kaczmarek Lindholm
    Mbeki Nordstrom Oduya Pemberton Qureshi Rosenthal Sutherland Tchaikovsky Underhill Villanueva Wainwright Yamaguchi Zuckerman
    Wu Khan Evans Roberts Harris Silva Müller Rossi Ivanova Larsson Bishop Cook Rivers Stone
""".split()
ZH_NAMES = """
    温如玉 柳青岩 江映雪 顾长风 白敬亭 乔雨薇 尹正熙 祝英台 莫小贝 邱启航 侯佳宁 石振宇 龙沛霖 万茜茜 段誉铭 雷雅婷 贺兰秋 倪瑞安 汤唯一 滕子京
    常明远 文婧 章鹏 齐悦 华晨 施诺 柏然 路遥 申屠浩 东方玥 张一凡 李思睿 王梓萱 刘奕辰 陈可心 杨沐阳 赵若彤 周俊豪 吴诗涵 孙浩
""".split()

EN = {
    "clinic": [
        "{name} came in with a swollen ankle on {date}.", "We saw {name} in the fracture clinic.", "Copy to Dr {name}, family practice.",
        "Mum ({name}) is worried about the rash.", "Bed 12: {name}, post-op day two.", "Please chase bloods for {name} before noon.",
        "Ms {last} declined the flu vaccine.", "Her next scan is due {date}; {first} prefers mornings.", "DOB: {date_of_birth}. Name: {name}.",
        "Hospital number {mrn} belongs to {name}.", "The interpreter for {name} was late.", "{name} lives at {address} with two cats.",
        "{first}'s blood sugar was 14 this morning.", "Professor {last} wants an MRI by {date}.",
    ],
    "bank": [
        "This is {name}, I lost my debit card {card}.", "Joint holders are {name} and {name}.", "Could you ring {first} on {phone}?",
        "{name} has not paid since {date}.", "The cheque was signed by {name}.", "Statement address: {address}.",
        "Fraud alert: {name} reported three charges on {date}.", "Yours sincerely, {name}", "Mr. {last} will visit the branch on {date}.",
        "Refund {iban} in the name of {name}.", "A/C number {account}, holder {name}.", "We spoke to {name}'s brother yesterday.",
        "Executor of the estate is {name}, reachable at {email}.", "{first} and I share the account.",
    ],
    "shop": [
        "{name} here, where is my order?", "Wrong size was sent to {name} on {date}.", "Leave it with {name} next door.",
        "Gift note: Happy birthday {first}!", "Best wishes, {first}", "Return label for {name} please.", "{first} from support was great.",
        "Shipping to {name} at {address}.", "The order by {name} was placed on {date}.", "You can text {first} at {phone}.",
        "Invoice to {name}, {email}.", "Purchased for {first}, who loves tea.", "My husband {name} collected it on {date}.",
        "Miss {last} would like a refund.",
    ],
}  # fmt: skip
ZH = {
    "clinic": [
        "{name}因反复咳嗽两周来诊。", "患者姓名：{name}　性别：女　年龄：36岁", "{date}由{name}行剖宫产术。", "今晨{name}体温三十八度二。", "请{name}于{date}复查血糖。",
        "{last}主任建议保守治疗。", "病案号：{mrn}，患者{name}已出院。", "陪护人员{name}，电话{phone}。", "{name}（{date_of_birth}出生）过敏史不详。", "与{name}家属沟通病情。",
        "现住址：{address}。", "护士{name}已完成交接。",
    ],
    "bank": [
        "{name}来网点办理销户。", "汇款人{name}，金额两千元，日期{date}。", "本人{name}申请提前还款。", "卡号{card}，持有人{name}。", "{last}女士的贷款将于{date}到期。",
        "请回拨{phone}找{name}。", "身份证号码：{national_id}，姓名：{name}。", "投诉人{name}表示未收到短信。", "账户{account}由{name}开立。", "{name}与其配偶{name}共同还款。",
        "寄送地址为{address}。", "客户经理{name}跟进。",
    ],
    "shop": [
        "{name}的快递已签收。", "麻烦转交给{name}，谢谢。", "订单于{date}由{name}支付。", "{last}先生要求换货。", "寄件人{name}，手机{phone}。", "送货到{address}，找{name}。",
        "我叫{name}，尺码买错了。", "{name}评价：面料柔软。", "发票抬头写{name}。", "店员{name}态度很好。", "给{name}的生日蛋糕要写名字。", "{date}下单的{name}还没收到货。",
    ],
}  # fmt: skip
_EN_CLEAN = """
    Chest clear, abdomen soft. | Started Crestor and Nexium. | Plavix was held before surgery. | Trial of Symbicort for asthma. | Tinel sign positive at the wrist.
    Graves disease, euthyroid now. | Paget disease of bone. | Raynaud phenomenon in both hands. | Lewy body dementia suspected. | Meniere disease, left ear.
    Discharged from Addenbrooke's Hospital. | Referred to the Royal Free. | Will need a walking frame. | Mark to review the wound on Monday. | Faith healing was discussed.
    Hope to discharge on Friday. | Joint account with a Visa card. | HSBC and Santander refused it. | My Barclaycard was declined. | PayPal sent a code.
    Capital One raised the limit. | The Chase app crashed. | Charles Schwab transfer pending. | Goldman Sachs bonds matured. | Standing order to British Gas.
    Direct debit to Scottish Power. | Rent to Foxtons in April. | Branch on Oxford Street. | ATM at King's Cross. | Interest from June to August.
    Exchange rate in Istanbul. | Holiday in Santa Monica. | A trip to New Delhi. | Flights via Abu Dhabi. | Tickets for Madison Square Garden.
    Levi's jeans shrank. | Adidas Stan Smith trainers. | The Kindle Paperwhite is slow. | Lego Star Wars set. | Le Creuset pot, cherry red.
    Yankee Candle, vanilla. | Dr. Oetker pizza was squashed. | Uncle Ben's rice. | Captain Morgan rum is out of stock. | Betty Crocker mix. | Mary Jane shoes, black.
    Peter Pan collar dress. | James Bond box set. | Tiffany lamp arrived broken. | Victoria sponge tin. | Earl Grey tea, loose. | Granny Smith apples. | Bloody Mary mix.
    Terms and Conditions apply. | Customer Service was rude. | Black Friday deal. | Free Shipping over 50 euros. | Gift Card Balance. | Order Number missing. | Size Medium.
    United States Postal Service. | Trinity College Dublin. | Lake Superior State. | Rocky Mountain spotted fever. | West Nile virus. | Lyme disease serology. | Type 2 diabetes.
""".replace("\n", " | ")
_ZH_CLEAN = """
    双下肢无水肿。 | 甲状腺功能正常。 | 高度近视。 | 雷贝拉唑每日一次。 | 方案已调整。 | 严密观察病情。 | 安排明日手术。 | 白蛋白偏低。 | 黄色分泌物。 | 水样便三次。 | 江边散步后头晕。
    金属过敏。 | 程度较轻。 | 孔源性视网膜脱离。 | 常见不良反应。 | 余无特殊。 | 于昨日出院。 | 任何时候都可以来。 | 单位电话打不通。 | 时常胸闷。 | 成人剂量减半。
    贷款利率下调。 | 华夏银行网点。 | 平安保险理赔。 | 柳州分行。 | 钱包丢了。 | 万元存单。 | 金额有误。 | 计息方式。 | 和平路支行。 | 建设银行手机银行。 | 周转资金。 | 向上取整。
    安踏跑鞋。 | 康师傅方便面。 | 老干妈辣酱。 | 王老吉凉茶。 | 李子柒螺蛳粉。 | 张小泉剪刀。 | 方太油烟机。 | 马应龙痔疮膏。 | 陈醋两瓶。 | 胡椒粉过期了。 | 许多人反映褪色。 | 包裹破损。
    蓝牙耳机。 | 白色款缺货。 | 毛巾掉毛。 | 连衣裙偏小。 | 罗汉果茶。 | 梅菜扣肉。 | 龙井茶。 | 云南普洱。 | 石榴汁。 | 花生油。 | 柏林直飞航班。 | 伍佰元代金券。 | 关于退款。 | 易碎品。
""".replace("\n", " | ")
CLEAN = {
    "en": [part.strip() for part in _EN_CLEAN.split("|") if part.strip()],
    "zh": [part.strip() for part in _ZH_CLEAN.split("|") if part.strip()],
}
