-- +goose Up

-- The payment service's own tables. The outbox is not one of them: cdc-relay's migrations make it.

CREATE TABLE payment.users (
    id         uuid        PRIMARY KEY,
    balance    bigint      NOT NULL CONSTRAINT users_balance CHECK (balance BETWEEN 0 AND 9007199254740991),
    currency   text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (id, currency)
);

CREATE TABLE payment.charges (
    id         uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES payment.users,
    amount     bigint      NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A price has the currency of the user's balance: the foreign key compares both.
CREATE TABLE payment.reservations (
    id         uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL,
    seat       text        NOT NULL CHECK (length(seat) BETWEEN 1 AND 50),
    price      bigint      NOT NULL CHECK (price BETWEEN 1 AND 9007199254740991),
    currency   text        NOT NULL,
    status     text        NOT NULL DEFAULT 'RESERVED' CHECK (status IN ('RESERVED', 'PAID', 'CANCELLED')),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (user_id, currency) REFERENCES payment.users (id, currency)
);

CREATE TABLE payment.payments (
    id             uuid        PRIMARY KEY,
    reservation_id uuid        NOT NULL REFERENCES payment.reservations,
    user_id        uuid        NOT NULL REFERENCES payment.users,
    status         text        NOT NULL CHECK (status IN ('COMPLETED', 'FAILED')),
    amount         bigint      NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    currency       text        NOT NULL,
    failure_code   text        CHECK (failure_code IN ('not_owner', 'expired', 'already_paid', 'cancelled', 'insufficient_balance', 'internal')),
    executed_at    timestamptz NOT NULL,
    CHECK ((status = 'FAILED') = (failure_code IS NOT NULL))
);
-- Whatever the code above the database does: a reservation is paid once.
CREATE UNIQUE INDEX payments_one_completed ON payment.payments (reservation_id) WHERE status = 'COMPLETED';
CREATE INDEX payments_by_reservation ON payment.payments (reservation_id, id DESC);
CREATE INDEX payments_by_user ON payment.payments (user_id, id DESC);

-- One row per thing that happened to a payment. The event id is kept here because the service may not read the outbox.
CREATE TABLE payment.history (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id  uuid        NOT NULL REFERENCES payment.payments,
    status      text        NOT NULL,
    event_id    uuid        NOT NULL UNIQUE,
    event_type  text        NOT NULL,
    recorded_at timestamptz NOT NULL
);
CREATE INDEX history_by_payment ON payment.history (payment_id, id);

-- The answer to a request, written in the transaction of the request itself: no payment exists without its answer, and
-- the row's own lock makes concurrent requests of one key wait for each other. No committed row lacks an answer.
CREATE TABLE payment.idempotency_keys (
    client      text        NOT NULL,
    key         text        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint bytea       NOT NULL,
    status      integer,
    location    text,
    body        bytea,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (client, key)
);
CREATE INDEX idempotency_keys_by_expiry ON payment.idempotency_keys (expires_at);
