// The hook that is an HTTP request: the event as JSON, by POST. What may pass (no connection, no answer in time, 408,
// 429, 5xx) is tried again, each time after twice the delay; any other answer than 2xx is final.

import { setTimeout as delay } from 'node:timers/promises';
import type { WebhookConfig } from '../../config/sections.js';
import { asError, codeOf } from '../../errors.js';
import { backoffMs } from '../../flow/backoff.js';
import type { Logger } from '../../report/log.js';
import { VERSION } from '../../version.js';
import type { HookResult, HookRun } from './events.js';

const DELAY_MS_MAX = 60_000;
const TIMED_OUT = new Error('no answer in time');

/** Never rejects: what goes wrong is the result. */
export async function callWebhook(
  webhook: WebhookConfig,
  message: string,
  signal: AbortSignal,
  log: Logger,
): Promise<HookRun> {
  for (let attempt = 1; ; attempt++) {
    const { final, run } = await post(webhook, message, signal);
    const details = { ...run.details, attempts: attempt };
    if (final || attempt >= webhook.attempts || signal.aborted) {
      return { result: signal.aborted && run.result !== 'success' ? 'cancelled' : run.result, details };
    }
    const delayMs = backoffMs(webhook.retryDelayMs, DELAY_MS_MAX, attempt - 1);
    log.warn({ ...details, delayMs }, 'webhook not delivered, will try again');
    try {
      await delay(delayMs, undefined, { signal });
    } catch {
      // The delay ends early for one reason only: the service stops.
      return { result: 'cancelled', details };
    }
  }
}

/** `final`: no use in another attempt. */
async function post(
  webhook: WebhookConfig,
  message: string,
  signal: AbortSignal,
): Promise<{ readonly final: boolean; readonly run: HookRun }> {
  const request = new AbortController();
  const stop = () => request.abort();
  const limit = setTimeout(() => request.abort(TIMED_OUT), webhook.timeoutMs);
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    const response = await fetch(webhook.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'user-agent': `romulus/${VERSION}` },
      body: message,
      // A redirected POST becomes a GET: the event would be lost and look delivered.
      redirect: 'manual',
      signal: request.signal,
    });
    // The status is the answer; a body, which may never end, is not waited for.
    await response.body?.cancel();
    const { status } = response;
    const passing = status === 408 || status === 429 || status >= 500;
    return { final: !passing, run: { result: response.ok ? 'success' : 'failure', details: { status } } };
  } catch (thrown) {
    const error = asError(thrown);
    const result: HookResult = request.signal.reason === TIMED_OUT ? 'timeout' : 'failure';
    // fetch says "fetch failed" and hides what happened in the cause.
    const details = { error: codeOf(error.cause ?? error), message: asError(error.cause ?? error).message };
    return { final: false, run: { result, details } };
  } finally {
    clearTimeout(limit);
    signal.removeEventListener('abort', stop);
  }
}
