/**
 * What a person reads of one part of the app, by name: sentences, functions for those with values in them, and groups of
 * both. A translation is another object with the same names.
 */
export type Catalogue = {
  readonly [name: string]: string | ((...values: never[]) => string) | Catalogue;
};
