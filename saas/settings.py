"""Settings: every value from the environment, safe local defaults."""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

from saas import embedded
from saas.lib import env
from saas.lib.object_store import Place

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = env.path("DATA_DIR", BASE_DIR / ".data")
MODELS_DIR = env.path("MODELS_DIR", DATA_DIR / "models")
OBJECTS_DIR = env.path("OBJECTS_DIR", DATA_DIR / "objects")
OBJECT_STORE = Place.from_environment(OBJECTS_DIR)  # that folder, or OBJECT_STORE=s3://bucket/prefix
TOMBSTONES_DIR = env.path("TOMBSTONES_DIR", DATA_DIR / "tombstones")  # never restored from a backup
RUN_DIR = env.path("RUN_DIR", DATA_DIR / "run")
# Engines: one socket for all bases, one for each (ENGINE_SPLIT), or where ENGINES says, base by base.
ENGINE_SOCKET = env.path("ENGINE_SOCKET", RUN_DIR / "engine.sock")
ENGINE_SPLIT = env.flag("ENGINE_SPLIT")
ENGINES = env.text("ENGINES")
ENGINE_TLS_CERT, ENGINE_TLS_KEY, ENGINE_TLS_CA = (
    env.path(name, BASE_DIR) if env.text(name) else None
    for name in ("ENGINE_TLS_CERT", "ENGINE_TLS_KEY", "ENGINE_TLS_CA")
)
ENGINE_PATIENCE_SECONDS = 8.0  # how long a request waits for an engine that restarts, within its own deadline
HEAVY_SLOTS = env.integer("HEAVY_SLOTS", 2)  # pieces of heavy work on data at once, in all quick workers
BATCH_SLOTS = env.integer("BATCH_SLOTS", 1)  # slices of batches at once, of the quick workers' processes
UPLOAD_OPEN_HOURS = env.integer("UPLOAD_OPEN_HOURS", 24)  # how long parts may keep one upload open
ROOT_KEY_FILE = env.path("ROOT_KEY_FILE", DATA_DIR / "root.key")
# The root key: file:PATH, aws-kms:ARN, vault:URL/MOUNT/KEY; those before it, until everything is wrapped again.
ROOT_KEY = env.text("ROOT_KEY", f"file:{ROOT_KEY_FILE}")
ROOT_KEY_PREVIOUS = env.text("ROOT_KEY_PREVIOUS").split()
VAULT_TOKEN_FILE = env.path("VAULT_TOKEN_FILE", DATA_DIR / "vault.token")
VAULT_NAMESPACE, VAULT_CA = env.text("VAULT_NAMESPACE"), env.text("VAULT_CA")
# Where tenants may keep a key of their own: aws-kms:REGION and vault:NAME=URL/MOUNT, between spaces.
OWN_KEYS = env.text("OWN_KEYS").split()
TENANT_GRACE_DAYS = env.integer(
    "TENANT_GRACE_DAYS", 7
)  # between asking for a tenant's deletion and the deletion
RECEIPT_KEY_FILE = env.path("RECEIPT_KEY_FILE", DATA_DIR / "receipt.key")
VERSION = re.findall(r"^## (\d[\w.]*)", (BASE_DIR / "CHANGELOG.md").read_text(), re.MULTILINE)[0]


def _secret(name: str) -> str:
    """From the environment, or made once in the data folder (0600) on a machine of one's own."""
    given = env.text(name)
    if given:
        return given
    file = DATA_DIR / name.lower()
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text()
    with os.fdopen(handle, "w") as new:
        new.write(secrets.token_urlsafe(48))
    return file.read_text()


# Commands typed beside a running `make run` find its embedded services; `up` starts them itself.
_starts_services = sys.argv[1:2] == ["up"] and "DATABASE_URL" not in os.environ
_running = {} if _starts_services or "DATABASE_URL" in os.environ else embedded.environment(DATA_DIR)
os.environ.update({name: value for name, value in _running.items() if name not in os.environ})
EMBEDDED = env.flag("CLOISTER_EMBEDDED", default=bool(_running) or _starts_services)
DEMO = env.flag("CLOISTER_DEMO", default=EMBEDDED)
if DEMO and not EMBEDDED:
    raise env.BadSetting(
        "CLOISTER_DEMO=1 needs the embedded services: demo sign-ins are never made on a real installation."
    )
DEBUG = False
SECRET_KEY = _secret("SECRET_KEY")
KEY_PEPPER = _secret("KEY_PEPPER")
PUBLIC_URL = env.text("PUBLIC_URL", f"http://localhost:{env.integer('PORT', 8000)}").rstrip("/")
SECURE = PUBLIC_URL.startswith("https://")
ALLOWED_HOSTS = env.text("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1],testserver").split(",")
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
INTERNAL_IPS: list[str] = []

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "channels",
    "csp",
    "drf_spectacular",
    "rest_framework",
    "template_partials",
    "saas",
    "tenants",
    "billing",
    "modeling",
]
MIDDLEWARE = [
    "saas.lib.http.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "saas.lib.http.RefusalMiddleware",
]
ROOT_URLCONF = "saas.urls"
ASGI_APPLICATION = "saas.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "tenants.context.tenancy",
            ],
            "libraries": {"markup": "saas.lib.markup"},
        },
    }
]

# Databases: the restricted role serves; the owner migrates; the operator role looks across tenants.
_NOWHERE = "postgresql://app@127.0.0.1:1/cloister"
_POOL = (
    {"pool": {"min_size": 1, "max_size": env.integer("DB_POOL", 0), "timeout": 20}}
    if env.integer("DB_POOL", 0)
    else {}
)
DATABASE_URL = env.text("DATABASE_URL", _NOWHERE)
DATABASES: dict[str, dict[str, Any]] = {
    "default": env.database(DATABASE_URL, OPTIONS=_POOL),
    "migrator": env.database(
        env.text("MIGRATOR_DATABASE_URL", DATABASE_URL.replace("//app", "//migrator", 1))
    ),
    "operator": env.database(
        env.text("OPERATOR_DATABASE_URL", DATABASE_URL.replace("//app", "//operator", 1))
    ),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = env.text("REDIS_URL", "redis://127.0.0.1:1/0")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "cloister",
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # One subscription a process instead of one blocking pop a socket: an event to 200 sockets costs one message.
        # redis-py's pool stops at 100 connections unless told.
        # Its default read timeout equals the layer's 5 s blocking pop, and closes quiet sockets.
        "CONFIG": {
            "hosts": [{"address": REDIS_URL, "max_connections": 5000, "socket_timeout": 20}],
            "prefix": "cloister-live",
        },
    }
}

# Metrics: an address for operators, never the public one; 0: none.
METRICS_HOST = env.text("METRICS_HOST", "127.0.0.1")
METRICS_PORT = env.integer("METRICS_PORT", 0)
HAS_OPERATOR = bool(env.text("OPERATOR_DATABASE_URL"))

# People
AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_USER_MODEL_EMAIL_FIELD = "email"
ACCOUNT_EMAIL_VERIFICATION = "optional"
ACCOUNT_ADAPTER = "tenants.accounts.AccountAdapter"
ACCOUNT_FORMS = {"signup": "tenants.forms.SignUpForm"}
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if SECURE else "http"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not SECURE
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGOUT_REDIRECT_URL = "/"

# Mail: printed to the log unless a server is named.
EMAIL_HOST = env.text("EMAIL_HOST")
EMAIL_PORT = env.integer("EMAIL_PORT", 587)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", default=bool(EMAIL_HOST))
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'console'}.EmailBackend"
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "Cloister <no-reply@localhost>")

# Payment: without a Stripe key the product talks HTTP to the stand-in, and says so.
STRIPE_SECRET_KEY = env.text("STRIPE_SECRET_KEY")
STRIPE_IS_STANDIN = not STRIPE_SECRET_KEY
STRIPE_API_BASE = env.text(
    "STRIPE_API_BASE", "https://api.stripe.com" if STRIPE_SECRET_KEY else "http://127.0.0.1:12111"
)
STRIPE_WEBHOOK_SECRET = env.text("STRIPE_WEBHOOK_SECRET", "" if STRIPE_SECRET_KEY else "whsec_standin")

# The web's edges
STATIC_URL = "/static/"
STATIC_ROOT = env.path("STATIC_ROOT", BASE_DIR / "static_root")
STATICFILES_DIRS = [BASE_DIR / "saas" / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_MAX_AGE = 3600
FILE_UPLOAD_HANDLERS = ["modeling.uploads.RefuseUploadHandler"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_500_000
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if SECURE else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "manifest-src": ["'self'"],
        "form-action": ["'self'", "https://checkout.stripe.com", "https://billing.stripe.com"]
        + ([STRIPE_API_BASE] if STRIPE_IS_STANDIN else []),
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    }
}

V1_THROTTLE = "billing.throttling.PlanThrottle"  # of tenants.access.TenantAPIView, which lies below the plans
REST_FRAMEWORK = {
    # tenants.access.TenantAPIView brings its own authentication; naming it here imports in a circle
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["saas.lib.parsing.JsonBody"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "saas.lib.negotiation.AnyAccept",
    "EXCEPTION_HANDLER": "saas.lib.http.api_error",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Cloister",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "POSTPROCESSING_HOOKS": ["saas.openapi.add_gateway", "drf_spectacular.hooks.postprocess_schema_enums"],
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]
LOCALE_PATHS = [BASE_DIR / "saas" / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    # Whoever asks /healthz while the parts start gets 503 many times: that is an answer, no error.
    "filters": {
        "quiet": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: "/healthz" not in record.getMessage(),
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["quiet"]}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
    # They tell of every call, with its address.
    "loggers": {name: {"level": "WARNING"} for name in ("httpx", "botocore")},
}
