// The members of etcd, any of which answers for all. The one that answered last is asked first. If it fails, the next
// is asked at once; if it only keeps us waiting (its host is gone, it stands still), the next is asked beside it:
//
//   one    ├──────────────────────────────┤ the limit
//   two           ├───────────▶ answer
//   three                ├─ (asked only if two is late as well)
//
// That is for questions. A write is sent to one member, once.

import { asError } from '../../../errors.js';
import { WitnessError } from '../../error.js';

export interface Answered<T> {
  readonly endpoint: URL;
  readonly answer: T;
}

/** These tell more than that somebody was not there. */
const TELLING: ReadonlySet<string> = new Set(['DENIED', 'CORRUPT']);

export class Endpoints {
  readonly #all: readonly URL[];
  #first = 0;

  /** @throws WitnessError BAD_OPTIONS */
  constructor(endpoints: readonly string[]) {
    this.#all = endpoints.map(parsed);
    if (this.#all.length === 0) throw new WitnessError('BAD_OPTIONS', 'etcd has no endpoint');
  }

  /**
   * The first answer. Whoever is asked besides is told by the signal that nobody waits any more.
   * @throws WitnessError what failed, if everyone did
   */
  ask<T>(
    ask: (endpoint: URL, signal: AbortSignal) => Promise<T>,
    limitMs: number,
    signal: AbortSignal,
  ): Promise<Answered<T>> {
    const inOrder = [...this.#all.slice(this.#first), ...this.#all.slice(0, this.#first)];
    const patienceMs = limitMs / (inOrder.length + 1);
    const rest = new AbortController();
    const failures: Error[] = [];
    let asked = 0;
    let patience: NodeJS.Timeout | undefined;
    return new Promise<Answered<T>>((resolve, reject) => {
      const abort = () => reject(asError(signal.reason));
      const askNext = () => {
        clearTimeout(patience);
        const endpoint = inOrder[asked];
        if (endpoint === undefined) return;
        asked++;
        patience = setTimeout(askNext, patienceMs);
        ask(endpoint, rest.signal).then(
          (answer) => resolve({ endpoint, answer }),
          (thrown: unknown) => {
            if (rest.signal.aborted) return;
            failures.push(asError(thrown));
            if (failures.length === inOrder.length) reject(together(failures));
            else askNext();
          },
        );
      };
      rest.signal.addEventListener('abort', () => signal.removeEventListener('abort', abort), { once: true });
      signal.addEventListener('abort', abort, { once: true });
      askNext();
    })
      .then((answered) => {
        this.#first = this.#all.indexOf(answered.endpoint);
        return answered;
      })
      .finally(() => {
        clearTimeout(patience);
        rest.abort();
      });
  }
}

function together(failures: readonly Error[]): Error {
  const telling = failures.find((error) => error instanceof WitnessError && TELLING.has(error.code));
  const told = telling ?? failures.at(-1) ?? new Error('nobody was asked');
  if (told instanceof WitnessError) told.suppressed.push(...failures.filter((error) => error !== told));
  return told;
}

function parsed(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : null;
  const good = url !== null && ['http:', 'https:'].includes(url.protocol) && url.pathname === '/';
  if (good && url.search === '' && url.hash === '' && url.username === '' && url.password === '') return url;
  const message = 'an endpoint of etcd is http:// or https://, a host and a port';
  throw new WitnessError('BAD_OPTIONS', message, { endpoint: endpoint.slice(0, 256) });
}
