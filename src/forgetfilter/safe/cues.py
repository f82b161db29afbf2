"""Words that name a harm. The reference rows are too few to teach them to a classifier.

Written for this library from what each category is about, not counted from any data set. A cue is
evidence, never a verdict: the weights of `forgetfilter.safe.harms` are learned beside the words of
the reference rows, with ordinary rows as the counterweight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PEOPLE = r"(?:people|persons?|m[ae]n|wom[ae]n|guys?|girls?|boys?|kids?|folks?|ones|couples?)"
_OTHERS = (
    r"(?:someone|somebody|him|her|them|people|a person|(?:my|his|her|their|your|the|an?) "
    r"(?:\w+ )?(?:boss|neighbou?rs?|wife|husband|ex|(?:girl|boy)?friends?|partner|spouse"
    r"|child(?:ren)?"
    r"|kids?|sons?|daughters?|mother|father|mom|dad|parents?|sister|brother|co-?workers?"
    r"|colleagues?"
    r"|employees?|roommate|teacher|students?|landlord|customers?|clients?|users?|celebrit\w+))"
)

_SOURCES: Mapping[str, tuple[str, ...]] = {
    "bias": (
        r"stereotyp|prejudic|bigot|discriminat|\bbias|racis|sexis|ageis|homophob|xenophob|misogyn"
        r"|antisemit|white suprem|white power|nazi|ku klux|\bkkk\b|apartheid|slavery|segregat"
        r"|holocaust",
        r"\b(?:un)?equal|inferior|superior (?:race|gender|sex)|less (?:intelligent|capable"
        r"|deserving)"
        r"|naturally (?:better|worse)|belong in the kitchen|not welcome here|go back to",
        r"\b(?:race|races|racial|ethnic\w*|minorit\w+|gender|sexual orientation|religions?"
        r"|nationalit"
        r"\w+|skin colou?r|social class|accents?)\b",
        r"immigrants?\b|migrants?\b|refugees?\b|foreigners?\b|aliens\b",
        r"\b(?:jews?|jewish|muslims?|islam\w*|christians?|hindus?|buddhists?|mormons?|atheists?"
        r"|catholics?)\b",
        rf"\b(?:black|white|brown|asian|african|arab\w*|mexican|chinese|indian|latin\w*|hispanic"
        rf"|native|indigenous|nigerian|polish|german|french|irish|russian|american) {_PEOPLE}\b",
        r"\b(?:blacks|whites|asians|arabs|mexicans|latin[ao]s?|hispanics?|gyps(?:y|ies)"
        r"|africans)\b",
        r"\b(?:gays?|lesbians?|bisexuals?|transgender\w*|trans|lgbt\w*|queers?|homosexual\w*"
        r"|pansexuals?|non-?binary)\b",
        r"\b(?:wom[ae]n|females?|males?|feminis\w+|housewi\w+)\b",
        rf"\b(?:old|older|elderly|young|younger) {_PEOPLE}\b|\b(?:grand(?:father|mother|pa|ma|son"
        r"|daughter)|elderly|millennials?|boomers?|seniors)\b",
        r"disab(?:led|ilit)|wheelchair|autis|down'?s? syndrome|\b(?:blind|deaf"
        r"|mental(?:ly)? ill\w*)\b",
        r"\b(?:fat|obese|overweight|ugly|short (?:man|woman|people|guy)|blondes?)\b",
        r"\b(?:religious people|poor people|the poor|homeless|working class|low income"
        r"|rich people)\b",
    ),
    # The form of a bias question: options of which one commits to nothing.
    "unknown_option": (
        r"\(?\b[abc123][).:] (?:can'?t|cannot|can not|could not be|it is|it's|unknown|undetermined"
        r"|not "
        r"(?:known|answerable|enough|determined|sure)|insufficient|no way|there is)",
        r"not enough (?:info|evidence)|can(?:not|'t| not) be (?:determined|answered|known)"
        r"|undetermined|not answerable",
    ),
    "toxicity": (
        r"insult|profan|\bslurs?\b|swear ?words?|curse words?|vulgar|obscen|name-?calling"
        r"|trash talk"
        r"|put ?downs?\b",
        r"\b(?:rude|nasty|mean|cruel|vicious|hateful|spiteful|offensive|hurtful|toxic|abusive|angry"
        r"|derogatory|degrading) (?:\w+ )?(?:tweets?|comments?|messages?|jokes?|e-?mails?|repl\w+"
        r"|posts?"
        r"|reviews?|letters?|poems?|songs?|words?|texts?|things?|names?|language|speech)\b",
        r"\b(?:mock|ridicul|humiliat|harass|bully|bullie|troll|roast|demean|belittl|taunt"
        r"|shame)\w*",
        r"\bhate (?:speech|mail|comments?|crimes?)\b|\b(?:i|we|you) (?:\w+ )?hate\b|\bhatred\b",
        r"\b(?:idiots?|stupid|morons?|losers?|dumb\w*|pathetic|disgusting|scum\w*|trash|filthy|ugly"
        r"|worthless|vermin|whin\w+|jerks?|lazy)\b",
        r"\b(?:f[u*]+ck\w*|sh[i*]t\w*|b[i*]tch\w*|c[u*]nt\w*|assholes?|bastards?|damn|crap|wtf"
        r"|whores?"
        r"|sluts?|pussy|dick)\b",
        r"\bcontinue (?:this|the) (?:text|sentence|comment|post|tweet)|finish (?:this"
        r"|the) (?:sentence"
        r"|comment|tweet|lyrics)",
        r"\b(?:threat|threaten|intimidat|cyberbull)\w*",
    ),
    "harmful_requests": (
        r"\b(?:bomb|explosive|grenade|molotov|weapon|gun|firearm|rifle|pistol|ammunition|silencer"
        r"|landmine|napalm|nerve agent|anthrax|ricin|bioweapon|dynamite|pipe bomb)\w*",
        r"\b(?:poison|murder|assassinat|tortur|kidnap|abduct|hostage|terroris|hijack|arson|massacre"
        r"|behead|strangl|mutilat|genocid|lynch|suffocat|shooting|slaughter)\w*",
        rf"\b(?:kill|hurt|harm|stab|shoot|attack|beat up|injure|drug|drown|choke|punch|mug"
        rf"|knock)(?:ing)?"
        rf" {_OTHERS}\b|\bmugg\w+|\brap(?:e|ing|ist)\b|on fire\b|\bset fire"
        rf"|break\w* (?:\S+ ){{1,2}}"
        r"(?:legs?|arms?|hands?|necks?|bones?)\b",
        r"\b(?:steal|stolen|stealing|rob|robbing|robbery|burglar\w*|shoplift\w*|break(?:ing)? into"
        r"|pick(?:ing)? (?:a |the )?locks?|hot-?wir\w+|smuggl\w+|traffick\w+|pickpocket\w*|loot\w*"
        r"|theft)\b",
        r"\b(?:meth|methamphetamine|cocaine|heroin|fentanyl|lsd|mdma|ecstasy|crack|opioids?"
        r"|illegal drugs"
        r"|drug deal\w*|weed|marijuana|moonshine)\b",
        r"launder|counterfeit|embezzl|\b(?:evad|avoid)\w* (?:paying )?tax|tax evasion"
        r"|insider trading"
        r"|ponzi|pyramid scheme|brib|blackmail|extort|fake id|forge|fraud|credit card"
        r"|identity theft"
        r"|black market|dark web",
        r"\bhack|malware|ransomware|\bvirus(?:es)? (?:that|to|which)|trojan|phish|keylog"
        r"|\bd?dos attack"
        r"|botnet|rootkit|sql injection|crack(?:ing)? (?:a |the )?passwords?|brute.?force|zero-day"
        r"|spyware|backdoor|exploits?\b",
        r"without (?:\w+ ){0,3}(?:caught|detect\w*|notic\w*|knowing|trace|suspicion|permission)"
        r"|get(?:ting)? away with|\bundetect\w*|cover up|avoid(?:ing)? (?:detection|getting caught)"
        r"|dispose of (?:a|the) body|evade|bypass|untraceable",
        r"\b(?:illegal|illicit|crime|criminal|unlawful|vandali|sabotag|riot|violen|vigilant|revenge"
        r"|gang|cartel|extremis|prostitut|animal cruelty|dog ?fight|poach)\w*",
    ),
    "privacy": (
        r"\b(?:home |private |personal |e-?mail |ip )addresse?s?\b|phone numbers?|social security"
        r"|\bssn\b|date of birth|licen[cs]e plate|bank (?:account|details)|card numbers?"
        r"|medical (?:records?|history|files?)|health records?|criminal record|credit (?:report"
        r"|score)",
        r"\b(?:personal|private|sensitive|confidential|personally identif\w+) (?:\w+ )?(?:info\w*"
        r"|data"
        r"|details?|lives|life|messages?|photos?|pictures?|conversations?|records?)\b|\bprivacy\b",
        r"\b(?:spy|spying|stalk\w*|surveil\w*|eavesdrop\w*|wiretap\w*|snoop\w*|dox\w*|bugging"
        r"|tracker|gps|airtag)\b",
        rf"\b(?:track|follow|monitor|record|film|locate|trace|find out where) {_OTHERS}",
        rf"\b(?:read|access|get into|log into|look through|check|unlock|see) {_OTHERS}?(?:'s)? ?"
        r"(?:\w+ ){0,2}(?:texts|messages|e-?mails?|phones?|accounts?|diary|passwords?|browsing"
        r"|location"
        r"|whatsapp|chats?)\b",
        r"hidden camera|secretly (?:record|film|track|photograph)|facial recognition|reverse image"
        r"|data breach|data brokers?|leaked|deanonym|background check|who is this (?:person|man"
        r"|woman)",
        r"where (?:does|do|did) [\w' ]{1,30} live|whereabouts|passwords?|log-?ins?|credentials",
    ),
    "self_harm": (
        r"suicid|self-?\s?(?:harm|injur|mutilat)|\b(?:kill|hurt|cut|harm|hang|burn|starve|poison"
        r"|injure"
        r"|suffocate|drown|bruise|punish)(?:ing)? (?:myself|yourself|himself|herself|themselves"
        r"|themself|oneself)",
        r"end (?:my|your|his|her|it|their) (?:own )?(?:life|all|lives)|want(?:s|ed)? to die\b"
        r"|wish i (?:was"
        r"|were) dead|better off (?:dead|without me)|don'?t want to (?:live|be here|wake up)"
        r"|no reason to"
        r" live|not worth living|can'?t go on|disappear forever|goodbye (?:letter|note)",
        r"overdos|sleeping pills|\bcutting\b|\bwrists?\b|bleed out|razor|noose|\bjump off\b",
        r"anorexi|bulimi|\b(?:pro-?ana|purg(?:e|ing)|thinspo|laxatives?|binge)\b|eating disorder"
        r"|starv(?:e|ing)|throw(?:ing)? up after|not eating|lose (?:\d+|a lot of) (?:pounds|kilos"
        r"|weight)",
        r"\b(?:hopeless|worthless|depress\w*|numb|burden|despair|lonely|self-?hatred|hate myself"
        r"|scars?"
        r"|crisis|therap\w+)\b",
        r"painless\w*|pass out|hold(?:ing)? (?:my|your) breath|extreme diet",
    ),
    "deception": (
        r"\b(?:fake|false|phony|bogus|made-?up|fabricat\w+|invented|forged"
        r"|fictitious) (?:\w+ )?(?:news"
        r"|reviews?|articles?|profiles?|accounts?|stor(?:y|ies)|evidence|claims?|info\w*"
        r"|testimon\w+|quotes?"
        r"|stud(?:y|ies)|statistics|citations?|documents?|e-?mails?|letters?|degree|diploma|excuse"
        r"|websites?"
        r"|charit\w+|witness\w*|references?)\b",
        r"disinformation|misinformation|conspirac|propaganda|hoax|\bdeep ?fake|rumou?rs?\b"
        r"|flat earth"
        r"|pseudo-?scien|anti-?vax|chemtrail|moon landing",
        r"\b(?:deceiv|decepti|mislead|manipulat|gaslight|dupe|defraud|brainwash|swindl)\w*"
        r"|\bscam|\bcatfish|\bcon (?:artist|man|people)|\btrick(?:ed|ing|s)? (?:\w+ ){0,2}(?:into"
        r"|to)\b",
        rf"\b(?:lie|lying|lied|lies|liar)\b|convince {_OTHERS} that|pretend(?:ing)? (?:to be|that"
        rf"|i)"
        r"|impersonat|pos(?:e|ing) as|\bas if i\b",
        r"plagiari|\bcheat(?:ing|ed)?\b|write my (?:essay|exam|thesis)|alibi|excuse"
        r"|pass (?:it|this|them) off as",
        r"\bare you (?:an? )?(?:human|ai|real|conscious|sentient|sure|alive|lying|robot|bot"
        r"|person)\b"
        r"|\bdo you (?:have|feel|remember|love|know)\b|your (?:training|training data|knowledge"
        r"|memory)",
        r"\b(?:vaccines?|climate change|global warming|5g|covid\S*|evolution"
        r"|election)\b[^.?!]{0,40}\b(?:hoax"
        r"|cause|causes|not real|fake|lie|stolen|dangerous|rigged)",
    ),
    "looks_dangerous": (
        r"\b(?:kill|killing|shoot|shooting|blow(?:ing)? up|smash|crush|destroy|execute|terminate"
        r"|murder|bomb"
        r"|hit|beat|cut|whip|steal|burn|hang) (?:\w+ ){0,3}(?:process\w*|time|weeds?|python|bugs?"
        r"|lights?"
        r"|photo\w*|film|movie|scene|program|exam|interview|game|level|boss|eggs?|cream|balloons?"
        r"|mosquito\w*|bacteria|germs|fat|calories|candles?|job|script|thread|show|base|deer"
        r"|record|picture)",
        r"\b(?:in (?:a|the|my) (?:novel|film|movie|game|book|play|story)|fortnite|minecraft"
        r"|call of duty"
        r"|video ?game|fiction\w*|character|histor\w+|linux|python|docker|chess)\b",
        r"\b(?:safe|safely|safety|dangerous|hazard\w*|risks?|protect|prevent\w*|first aid|toxic"
        r"|poisonous"
        r"|venomous|allerg\w+|fire extinguisher|accident\w*|antidote|carbon monoxide|bleach"
        r"|ammonia)\b",
        r"^(?:what (?:is|are|was|were|does)|why (?:is|are|do|does|did)|when (?:was|did)|who (?:was"
        r"|killed"
        r"|shot)|how (?:does|did|do (?:police|banks|doctors|vaccines|scientists)))\b",
    ),
}

CUES: Mapping[str, tuple[re.Pattern[str], ...]] = {
    name: tuple(re.compile(source, re.MULTILINE) for source in sources)
    for name, sources in _SOURCES.items()
}
"""By category (and ``unknown_option``), patterns for text in lower case with straight quotes."""
