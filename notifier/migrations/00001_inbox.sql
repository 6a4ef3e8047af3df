-- +goose Up
CREATE TABLE notifier_inbox (
    event_id      uuid PRIMARY KEY,
    -- sending: an attempt began, its outcome is not known; waiting: known not to
    -- be posted; sent; unknown: given up because it may be posted (at_most_once);
    -- filtered: too old; dead: in the dead letter topic
    state         text NOT NULL CHECK (state IN ('sending', 'waiting', 'sent', 'unknown', 'filtered', 'dead')),
    attempts      integer NOT NULL DEFAULT 0,
    -- an earlier attempt may have been posted
    doubtful      boolean NOT NULL DEFAULT false,
    event_type    text NOT NULL,
    reason        text NOT NULL DEFAULT '',
    topic         text NOT NULL,
    partition     integer NOT NULL,
    record_offset bigint NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX notifier_inbox_prunable ON notifier_inbox (updated_at) WHERE state IN ('sent', 'unknown', 'filtered');

-- +goose Down
DROP TABLE notifier_inbox;
