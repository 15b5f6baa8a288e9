"""Where AWS keeps the images of SageMaker's built-in algorithms: an account for each region, and a tag.

The accounts are those that AWS publishes with its SDK. There is no rule behind them, so a region that is not listed is
refused instead of guessed.
"""

from stockpicker_dagster.errors import InvalidInput

TAGS = {"xgboost": ("sagemaker-xgboost", "3.2-0"), "linear-learner": ("linear-learner", "1")}
"""Repository and tag of each algorithm. Older images of XGBoost left models in a format of their own."""

_ACCOUNTS = {
    # region: that of xgboost, that of linear-learner
    "af-south-1": ("510948584623", "455444449433"),
    "ap-east-1": ("651117190479", "286214385809"),
    "ap-northeast-1": ("354813040037", "351501993468"),
    "ap-northeast-2": ("366743142698", "835164637446"),
    "ap-northeast-3": ("867004704886", "867004704886"),
    "ap-south-1": ("720646828776", "991648021394"),
    "ap-south-2": ("628508329040", "628508329040"),
    "ap-southeast-1": ("121021644041", "475088953585"),
    "ap-southeast-2": ("783357654285", "712309505854"),
    "ap-southeast-3": ("951798379941", "951798379941"),
    "ap-southeast-4": ("106583098589", "106583098589"),
    "ca-central-1": ("341280168497", "469771592824"),
    "ca-west-1": ("190319476487", "190319476487"),
    "cn-north-1": ("450853457545", "390948362332"),
    "cn-northwest-1": ("451049120500", "387376663083"),
    "eu-central-1": ("492215442770", "664544806723"),
    "eu-central-2": ("680994064768", "680994064768"),
    "eu-north-1": ("662702820516", "669576153137"),
    "eu-south-1": ("978288397137", "257386234256"),
    "eu-south-2": ("104374241257", "104374241257"),
    "eu-west-1": ("141502667606", "438346466558"),
    "eu-west-2": ("764974769150", "644912444149"),
    "eu-west-3": ("659782779980", "749696950732"),
    "il-central-1": ("898809789911", "898809789911"),
    "me-central-1": ("272398656194", "272398656194"),
    "me-south-1": ("801668240914", "249704162688"),
    "sa-east-1": ("737474898029", "855470959533"),
    "us-east-1": ("683313688378", "382416733822"),
    "us-east-2": ("257758044811", "404615174143"),
    "us-gov-east-1": ("237065988967", "237065988967"),
    "us-gov-west-1": ("414596584902", "226302683700"),
    "us-west-1": ("746614075791", "632365934929"),
    "us-west-2": ("246618743249", "174872318107"),
}


def image_uri(algorithm: str, region: str) -> str:
    """The image of a built-in algorithm in a region. Raises `InvalidInput` for a region or an algorithm without one."""
    if algorithm not in TAGS:
        raise InvalidInput(f"built-in algorithm {algorithm!r} is unknown; known: {', '.join(sorted(TAGS))}")
    if region not in _ACCOUNTS:
        raise InvalidInput(f"no image of {algorithm} is known in {region!r}; known regions: {', '.join(_ACCOUNTS)}")
    repository, tag = TAGS[algorithm]
    account = _ACCOUNTS[region][list(TAGS).index(algorithm)]
    world = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{account}.dkr.ecr.{region}.{world}/{repository}:{tag}"
