"""The languages the detector knows: code to English name.

The codes are ISO 639-1 where the language has one, else ISO 639-3. fastText's labels are Wikipedia's subdomains, three of
which mean something else in ISO: `CODES` translates them.
"""

CODES = {"als": "gsw", "bh": "bih", "eml": "egl"}

_ENTRIES = """
    af=Afrikaans|am=Amharic|an=Aragonese|ar=Arabic|arz=Egyptian Arabic|as=Assamese|ast=Asturian|av=Avaric
    az=Azerbaijani|azb=South Azerbaijani|ba=Bashkir|bar=Bavarian|bcl=Central Bikol|be=Belarusian|bg=Bulgarian
    bih=Bihari|bn=Bangla|bo=Tibetan|bpy=Bishnupriya|br=Breton|bs=Bosnian|bxr=Russia Buriat|ca=Catalan|ce=Chechen
    ceb=Cebuano|ckb=Central Kurdish|co=Corsican|cs=Czech|cv=Chuvash|cy=Welsh|da=Danish|de=German|diq=Dimli
    dsb=Lower Sorbian|dty=Dotyali|dv=Divehi|egl=Emilian|el=Greek|en=English|eo=Esperanto|es=Spanish|et=Estonian
    eu=Basque|fa=Persian|fi=Finnish|fr=French|frr=Northern Frisian|fy=Western Frisian|ga=Irish|gd=Scottish Gaelic
    gl=Galician|gn=Guarani|gom=Goan Konkani|gsw=Swiss German|gu=Gujarati|gv=Manx|he=Hebrew|hi=Hindi|hif=Fiji Hindi
    hr=Croatian|hsb=Upper Sorbian|ht=Haitian Creole|hu=Hungarian|hy=Armenian|ia=Interlingua|id=Indonesian
    ie=Interlingue|ilo=Iloko|io=Ido|is=Icelandic|it=Italian|ja=Japanese|jbo=Lojban|jv=Javanese|ka=Georgian|kk=Kazakh
    km=Khmer|kn=Kannada|ko=Korean|krc=Karachay-Balkar|ku=Kurdish|kv=Komi|kw=Cornish|ky=Kyrgyz|la=Latin
    lb=Luxembourgish|lez=Lezghian|li=Limburgish|lmo=Lombard|lo=Lao|lrc=Northern Luri|lt=Lithuanian|lv=Latvian
    mai=Maithili|mg=Malagasy|mhr=Eastern Mari|min=Minangkabau|mk=Macedonian|ml=Malayalam|mn=Mongolian|mr=Marathi
    mrj=Western Mari|ms=Malay|mt=Maltese|mwl=Mirandese|my=Burmese|myv=Erzya|mzn=Mazanderani|nah=Nahuatl|nap=Neapolitan
    nds=Low German|ne=Nepali|new=Newari|nl=Dutch|nn=Norwegian Nynorsk|no=Norwegian|oc=Occitan|or=Odia|os=Ossetic
    pa=Punjabi|pam=Pampanga|pfl=Palatine German|pl=Polish|pms=Piedmontese|pnb=Western Punjabi|ps=Pashto|pt=Portuguese
    qu=Quechua|rm=Romansh|ro=Romanian|ru=Russian|rue=Rusyn|sa=Sanskrit|sah=Yakut|sc=Sardinian|scn=Sicilian|sco=Scots
    sd=Sindhi|sh=Serbo-Croatian|si=Sinhala|sk=Slovak|sl=Slovenian|so=Somali|sq=Albanian|sr=Serbian|su=Sundanese
    sv=Swedish|sw=Swahili|ta=Tamil|te=Telugu|tg=Tajik|th=Thai|tk=Turkmen|tl=Tagalog|tr=Turkish|tt=Tatar|tyv=Tuvinian
    ug=Uyghur|uk=Ukrainian|ur=Urdu|uz=Uzbek|vec=Venetian|vep=Veps|vi=Vietnamese|vls=West Flemish|vo=Volapük
    wa=Walloon|war=Waray|wuu=Wu Chinese|xal=Kalmyk|xmf=Mingrelian|yi=Yiddish|yo=Yoruba|yue=Cantonese|zh=Chinese
"""

NAMES = dict(entry.strip().split("=") for line in _ENTRIES.strip().splitlines() for entry in line.split("|"))
