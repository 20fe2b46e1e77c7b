// One stream on the secondary: the restorer, and what it says to the link and the machine.
//
//   link.source ─▶ restoreDomain ─ checkpoint(n) ─▶ link.boundary: whole, digest right ─▶ acknowledge(n) ─▶ apply
//
// From the moment that an acknowledgement is given to the link the epoch counts, whatever becomes of the link: the
// primary may have it and let its output out. So it is applied, and the machine is told first.

import { ChannelError, type CheckpointBoundary, type SecondaryLink } from '../channel/contract.js';
import { asError, codeOf } from '../errors.js';
import type { TargetDomain } from '../hypervisor/port.js';
import type { AppliedCheckpoint, CheckpointVerdict } from '../restore/callbacks.js';
import { restoreDomain, type RestoreOutcome } from '../restore/restore.js';
import type { RecordSource } from '../stream/flow.js';
import { monotonicMs } from '../flow/clock.js';
import type { Logger } from '../report/log.js';
import type { CommitReport } from '../report/reports.js';

export type SessionEvent =
  | { readonly kind: 'acknowledged'; readonly epoch: number }
  | { readonly kind: 'ended' }
  | {
      readonly kind: 'restored';
      readonly consistent: boolean;
      readonly epochsBack: number;
      readonly code: string;
      readonly message: string;
    };

export interface SecondarySessionOptions {
  readonly name: string;
  readonly link: SecondaryLink;
  readonly bufferLimitBytes: number;
  readonly log: Logger;
  readonly send: (event: SessionEvent) => void;
  readonly committed: (report: CommitReport) => void;
}

interface Acknowledged {
  readonly boundary: CheckpointBoundary;
  readonly atMs: number;
}

export class SecondarySession {
  epochAcknowledged = -1;
  epochCommitted = -1;
  acknowledgedAtMs: number | null = null;

  readonly #options: SecondarySessionOptions;
  #acknowledged: Acknowledged | null = null;
  #code = '';
  /** Octets of records that the restorer has taken and not applied. */
  #taken = 0;

  constructor(options: SecondarySessionOptions) {
    this.#options = options;
  }

  get streamUuid(): string {
    return this.#options.link.welcome.streamUuid;
  }

  /** Octets received and not yet applied. */
  get bufferedBytes(): number {
    return this.#options.link.bufferedBytes + this.#taken;
  }

  /** Resolves when the restorer is done with the domain. The machine is told last. */
  async run(domain: TargetDomain): Promise<void> {
    const { link, bufferLimitBytes, log, send } = this.#options;
    try {
      const outcome = await restoreDomain({
        domain,
        source: this.#source(link.source),
        streamType: 'remus',
        bufferLimitBytes,
        callbacks: {
          checkpoint: (epoch) => this.#checkpoint(epoch),
          applied: (checkpoint) => this.#applied(checkpoint),
          skippedRecord: (type, offset) => log.debug({ type, offset }, 'optional record skipped'),
        },
      });
      await this.#conclude(outcome);
      const broken = outcome.kind === 'failover' ? outcome : null;
      const epochsBack = broken === null ? 0 : this.epochAcknowledged - broken.epoch;
      const message = broken?.cause?.message ?? this.#code;
      send({ kind: 'restored', consistent: true, epochsBack, code: this.#code, message });
    } catch (error) {
      this.#code ||= codeOf(error);
      const expected = this.epochAcknowledged < 0 && this.#code !== 'BAD_CONTEXT';
      log[expected ? 'info' : 'error']({ err: error }, 'the stream cannot be restored');
      const { message } = asError(error);
      send({ kind: 'restored', consistent: false, epochsBack: 0, code: this.#code, message });
    }
  }

  async #checkpoint(epoch: number): Promise<CheckpointVerdict> {
    const { link, log, send } = this.#options;
    let boundary: CheckpointBoundary;
    try {
      boundary = await link.boundary();
    } catch (error) {
      this.#code = codeOf(error);
      return 'failover';
    }
    if (boundary.end || boundary.epoch !== epoch) {
      this.#code = 'BAD_MESSAGE';
      link.destroy(
        new ChannelError('BAD_MESSAGE', 'the checkpoint message is not that of the records', {
          epoch,
          told: boundary.epoch,
          end: boundary.end,
        }),
      );
      return 'failover';
    }
    this.epochAcknowledged = epoch;
    this.acknowledgedAtMs = monotonicMs();
    this.#acknowledged = { boundary, atMs: this.acknowledgedAtMs };
    send({ kind: 'acknowledged', epoch });
    link.acknowledge(epoch).catch((error: unknown) => {
      log.debug({ err: error, epoch }, 'the acknowledgement may not have arrived');
    });
    return 'success';
  }

  #applied({ epoch, records, pages, applySeconds }: AppliedCheckpoint): void {
    const { name, log, committed } = this.#options;
    this.epochCommitted = epoch;
    this.#taken = 0;
    if (!this.#acknowledged) return;
    const { boundary, atMs } = this.#acknowledged;
    const { bytes, outputBytes } = boundary;
    log.debug({ epoch, records, pages, bytes, applySeconds }, 'checkpoint committed');
    committed({
      domain: name,
      streamUuid: this.streamUuid,
      epoch,
      records,
      pages,
      bytes,
      applySeconds,
      acknowledgedAtMs: atMs,
      outputBytes,
    });
  }

  async #conclude(outcome: RestoreOutcome): Promise<void> {
    const { link, send } = this.#options;
    if (outcome.kind === 'failover') {
      if (outcome.cause) {
        const refused = codeOf(outcome.cause) === 'BAD_CONTEXT';
        const what = refused
          ? 'a checkpoint cannot be loaded: back to the one before'
          : 'the open checkpoint was dropped';
        this.#options.log.warn({ err: outcome.cause, epoch: outcome.epoch }, what);
        this.#code = codeOf(outcome.cause);
      }
      return;
    }
    try {
      const boundary = await link.boundary();
      if (!boundary.end) throw new ChannelError('BAD_MESSAGE', 'END without its checkpoint message');
      // The machine first: once the primary knows, it lets out everything, and we must never take over.
      send({ kind: 'ended' });
      await link.acknowledge(boundary.epoch);
    } catch (error) {
      this.#code = codeOf(asError(error));
    }
  }

  #source(source: RecordSource): RecordSource {
    return {
      headers: () => source.headers(),
      read: async () => {
        const record = await source.read();
        if (record !== null) this.#taken += record.body.length;
        return record;
      },
      release: (record) => source.release?.(record),
    };
  }
}
