// The shape of what carries out the vigil's effects, and of what it is given for that.

import type { ObservableInput } from 'rxjs';
import type { SecondaryLink } from '../channel/contract.js';
import type { Performer } from '../flow/feedback.js';
import type { SecondaryEffect, SecondaryEvent } from './vigil-state.js';

export type Perform = Performer<SecondaryEvent, SecondaryEffect>;
export type Effect<Kind extends SecondaryEffect['kind']> = Extract<SecondaryEffect, { readonly kind: Kind }>;

/** As the port, but for how its answers come: they may be observables, under virtual time. */
export type Answering<Port> = {
  readonly [Call in keyof Port]: Port[Call] extends (...given: infer Given) => Promise<infer Answer>
    ? (...given: Given) => ObservableInput<Answer>
    : Port[Call];
};

export type StreamLink = Answering<SecondaryLink>;
