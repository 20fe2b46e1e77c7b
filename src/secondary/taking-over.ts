// Taking over, once it is decided: the standby is started, and the world hears it. What becomes of it is told to the vigil,
// which says what to report: the domain may run from an epoch before the one that was meant.

import { EMPTY, catchError, merge, mergeMap, of, tap, throwError, type Observable } from 'rxjs';
import { asError, codeOf } from '../errors.js';
import { HypervisorError } from '../hypervisor/port.js';
import type { SecondaryPorts, Takeable } from './ports.js';
import type { SecondaryEvent } from './vigil-state.js';

export function takingOver(
  ports: Pick<SecondaryPorts, 'held' | 'failed' | 'error$' | 'work'>,
): Observable<SecondaryEvent> {
  const { error$, work } = ports;
  const standby = ports.held() ?? NOTHING;
  const epochsBack = () => standby.domain.checkpointsBack ?? 0;
  return work
    .keep(() => standby.takeOver())
    .pipe(
      tap(() => error$.next(null)),
      mergeMap(() =>
        merge(
          work.attempt('announce the domain', () => standby.domain.announce?.() ?? EMPTY),
          of<SecondaryEvent>({ kind: 'started', epochsBack: epochsBack() }),
        ),
      ),
      catchError((thrown: unknown) => {
        const error = asError(thrown);
        ports.failed(error);
        const { message } = error;
        return of<SecondaryEvent>({
          kind: 'start-failed',
          code: codeOf(error),
          message,
          epochsBack: epochsBack(),
        });
      }),
    );
}

const NOTHING: Takeable = {
  takeOver: () =>
    throwError(() => new HypervisorError('DOMAIN_GONE', 'there is no standby to be taken over')),
  domain: {},
};
