// Telling the world outside of a failover: a command and a webhook that the configuration names.
//
//   service ──events$──▶ one queue for each domain and hook ──▶ run ──outcomes$──▶ log, metrics
//
// A hook never holds up a failover and never breaks one: events are taken at once, hooks run beside the service, and
// whatever becomes of a hook is an outcome, not an exception. The events of a domain reach a hook in order, one at a
// time, so that "completed" does not overtake "started".

import { randomUUID } from 'node:crypto';
import { type Observable, Subject, type Subscription } from 'rxjs';
import type { HooksConfig } from '../../config/sections.js';
import { monotonicMs } from '../../flow/clock.js';
import { InOrder } from '../../flow/in-order.js';
import type { Logger } from '../../report/log.js';
import { runCommand } from './command.js';
import type { HookEvent, HookKind, HookOutcome, HookRun } from './events.js';
import { callWebhook } from './webhook.js';

export interface HookRunner {
  /** One for each event and configured hook. Completes after stop(). */
  readonly outcomes$: Observable<HookOutcome>;
  /** Resolves when no hook runs and none waits. */
  settled(): Promise<void>;
  /** Takes no more events, ends what runs (commands are killed, requests aborted); safe to call twice. */
  stop(): Promise<void>;
}

const cancelled = (why: string): HookRun => ({ result: 'cancelled', details: { why } });

/** Events of one domain that may wait for a hook: a domain has three in its life. */
const QUEUE_MAX = 32;

export function startHooks(config: HooksConfig, events$: Observable<HookEvent>, log: Logger): HookRunner {
  const outcomes = new Subject<HookOutcome>();
  const aborter = new AbortController();
  const queues = new Map<string, { readonly order: InOrder; length: number }>();
  const running = new Set<Promise<void>>();

  const finish = (hook: HookKind, event: HookEvent, startedAtMs: number, { result, details }: HookRun) => {
    const seconds = (monotonicMs() - startedAtMs) / 1000;
    const outcome: HookOutcome = { hook, event: event.event, domain: event.domain, seconds, result, details };
    const level = result === 'success' ? 'info' : 'error';
    log[level]({ ...outcome, ...details, details: undefined }, `${hook} for ${event.event}: ${result}`);
    outcomes.next(outcome);
  };

  const enqueue = (hook: HookKind, event: HookEvent, run: () => Promise<HookRun>) => {
    const key = `${hook} ${event.domain}`;
    const queue = queues.get(key) ?? { order: new InOrder(), length: 0 };
    queues.set(key, queue);
    if (queue.length >= QUEUE_MAX) {
      finish(hook, event, monotonicMs(), cancelled('too many events wait'));
      return;
    }
    queue.length++;
    const turn = queue.order.do(async () => {
      const startedAtMs = monotonicMs();
      const outcome = aborter.signal.aborted ? cancelled('the service stopped') : await run();
      queue.length--;
      finish(hook, event, startedAtMs, outcome);
    });
    running.add(turn);
    void turn.finally(() => running.delete(turn));
  };

  const subscription: Subscription = events$.subscribe((event) => {
    // One identity for all attempts: a receiver tells a repeated attempt from a second event.
    const message = JSON.stringify({ id: randomUUID(), ...event });
    const { command, commandTimeoutMs, webhook } = config;
    if (command) {
      enqueue('command', event, () =>
        runCommand({ command, timeoutMs: commandTimeoutMs, event, message, signal: aborter.signal }),
      );
    }
    if (webhook) {
      enqueue('webhook', event, () => callWebhook(webhook, message, aborter.signal, log));
    }
  });

  const settled = async () => {
    while (running.size > 0) await Promise.all(running);
  };

  return {
    outcomes$: outcomes.asObservable(),
    settled,
    async stop() {
      subscription.unsubscribe();
      aborter.abort();
      await settled();
      outcomes.complete();
    },
  };
}
